"""Decode steps over tensors that keep their place, without being recorded: the same tokens as the eager way."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine_decode import Run, prompt_of
from torch.utils._python_dispatch import TorchDispatchMode

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.choice import Choice
from hone_worker.engine.sampling import RowSampling, SamplingParams, Uniforms, draw
from hone_worker.engine.static_step import STEPS_AHEAD

Policies = list[LoraWeights | None]


@pytest.fixture
def policies(tiny_base: Base, adapter_folders: list[Path]) -> Policies:
    return [None, *(read_adapter(folder, tiny_base.model) for folder in adapter_folders)]


def story(base: Base, policies: Policies, seed: int, **options: Any) -> tuple[Run, list[Choice]]:
    """Rows of several policies that join, end, are cancelled and go on, each with its own sampling."""
    draw = random.Random(seed)
    run = Run(base, max_rows=draw.choice((3, 8, 64)), cache_bytes=1 << draw.choice((20, 28)), **options)
    made: list[Choice] = []
    only = draw.choice((None, 1))
    for number in range(16):
        policy = policies[draw.randrange(3) if only is None else only]
        prompt = prompt_of(draw.randint(1, 140), 50 * seed + number % 5) + prompt_of(1, number)
        asked = draw.choice(({}, {"temperature": 0.0}, {"temperature": 0.6}, {"top_p": 0.8}, {"top_k": 5}))
        tokens = draw.choice((1, 9, 20, STEPS_AHEAD + 9))
        made.append(run.add(prompt, policy, max_tokens=tokens, seed=number, **asked))
        for _ in range(draw.randint(0, 9)):
            run.decoder.step()
    run.finish()
    return run, made


@pytest.mark.parametrize("seed", range(6))
def test_the_same_tokens_as_step_by_step(tiny_base: Base, policies: Policies, seed: int) -> None:
    eager, expected = story(tiny_base, policies, seed)
    graph, found = story(tiny_base, policies, seed, decode="graph")
    assert graph.decoder.graphs is not None and graph.decoder.graphs.taken > 30
    for one, other in zip(expected, found, strict=True):
        before, after = eager.of(one), graph.of(other)
        assert after.token_ids == before.token_ids
        assert torch.allclose(torch.tensor(after.logprobs), torch.tensor(before.logprobs), atol=1e-5)
        assert after.finish_reason == before.finish_reason
    # The numbers that were sent ahead and not used are still to come.
    assert [c.uniforms.next() for c in expected] == [c.uniforms.next() for c in found]


def test_rows_that_need_the_host_go_step_by_step_and_come_back(tiny_base: Base, policies: Policies) -> None:
    def told(decode: str) -> tuple[Run, list[Choice]]:
        run = Run(tiny_base, decode=decode)
        made = [run.add(prompt_of(9, 1), policies[1], max_tokens=30, seed=1)]
        for _ in range(5):
            run.decoder.step()
        # Likeliest tokens come from the eager way alone.
        made.append(run.add(prompt_of(12, 2), policies[1], max_tokens=8, seed=2))
        made[-1].top = 3
        run.finish()
        return run, made

    eager, expected = told("eager")
    graph, found = told("graph")
    assert [graph.of(c).token_ids for c in found] == [eager.of(c).token_ids for c in expected]
    assert len(graph.of(found[1]).top) == 8
    assert graph.decoder.graphs is not None and 5 <= graph.decoder.graphs.taken <= 24


def test_a_row_that_is_not_finite_fails_alone(tiny_base: Base, policies: Policies) -> None:
    good = policies[1]
    assert good is not None
    huge = LoraWeights(good.spec, {p: (a * 1e20, b * 1e20) for p, (a, b) in good.tensors.items()})
    run = Run(tiny_base, decode="graph")
    bad = run.add(prompt_of(10, 1), huge)
    fine = run.add(prompt_of(10, 2), None, max_tokens=10)
    run.finish()
    with pytest.raises(Exception, match="finite"):
        run.of(bad)
    assert len(run.of(fine).token_ids) == 10


class Dispatched(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            name = "index by a mask"
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_sends_nothing_and_waits_once(
    tiny_base: Base, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a recorded step may not do, and what would cost a transfer in each step, does not happen in any."""
    run = Run(tiny_base, decode="graph")
    made = [run.add(prompt_of(20 + i, i), policies[1 + i % 2], max_tokens=60, seed=i) for i in range(5)]
    while run.decoder.table.live < 5:
        run.decoder.step()
    run.decoder.step()
    graphs = run.decoder.graphs
    assert graphs is not None and graphs._loaded is not None
    reads: list[int] = []
    read = type(graphs._loaded).read
    monkeypatch.setattr(type(graphs._loaded), "read", lambda self, n: reads.append(n) or read(self, n))
    made_here: list[Any] = []
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: made_here.append(a) or tensor(*a, **k))
    steps = 10
    assert graphs._loaded.left > steps
    before = graphs.taken
    with Dispatched() as seen:
        for _ in range(steps):
            run.decoder.step()
    assert graphs.taken == before + steps and reads == [5] * steps
    assert not made_here
    for forbidden in ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "is_nonzero"):
        assert seen.counts[forbidden] == 0, forbidden
    assert seen.counts["index by a mask"] == 0
    # Into the result, into the ids, and the one back.
    assert seen.counts["copy_"] == 3 * steps
    monkeypatch.undo()
    # The eager way sends: the count can fail.
    eager = Run(tiny_base)
    for choice in made:
        eager.add(choice.prompt, choice.adapter, max_tokens=60, seed=1)
    while eager.decoder.table.live < 5:
        eager.decoder.step()
    with Dispatched() as seen, torch.inference_mode():
        eager.decoder.step()
    assert seen.counts["lift_fresh"] > 0


def test_numbers_ahead_are_those_that_come() -> None:
    ahead, plain = Uniforms(5), Uniforms(5)
    for _ in range(7):
        assert ahead.next() == plain.next()
    for count in (3, 40, 70):
        wanted = ahead.ahead(count)
        assert wanted == [plain.next() for _ in range(count)] == [ahead.next() for _ in range(count)]


def test_weights_that_are_not_finite_give_a_token_of_the_vocabulary() -> None:
    vocabulary = 5000
    logits = torch.full((2, vocabulary), float("nan"))
    rows = RowSampling.of([SamplingParams(), SamplingParams(temperature=0.0)], vocabulary, "cpu")
    tokens = draw(logits, rows, torch.tensor([0.99, 0.0], dtype=torch.float64))[:, 0]
    assert bool((tokens < vocabulary).all())


def test_split_kv_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton is: its kernels by its interpreter, against softmax in float64."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from hone_worker.engine import split_kv as kernels

    split_kv = kernels.split_kv
    for dtype in (torch.float32, torch.float16):  # the interpreter multiplies no bfloat16
        assert kernels.fault(8, 2, 32, torch.device("cpu"), dtype) is None
    with monkeypatch.context() as patch:
        # A kernel that leaves out places is found.
        patch.setattr(kernels, "split_kv", lambda q, k, v, r, p, *rest: split_kv(q, k, v, r, p // 2, *rest))
        assert "off by" in (kernels.fault(8, 2, 32, torch.device("cpu"), torch.float32) or "")
    random = torch.Generator().manual_seed(1)
    for heads, key_heads, dim, length in ((4, 2, 16, 70), (8, 2, 32, 300), (3, 3, 16, 128), (8, 1, 64, 65)):
        slots, count, room = 5, 4, length + 20
        keys = torch.randn(slots, key_heads, dim, room, generator=random)
        values = torch.randn(slots, key_heads, room, dim, generator=random)
        query = torch.randn(count, heads, dim, generator=random)
        rows = torch.tensor([3, 0, 4, 1])
        positions = torch.tensor([0, length - 1, length // 2, 7])
        # What lies behind a row's own length is nobody's, and may be anything.
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            keys[row, :, :, position + 1 :] = float("nan")
            values[row, :, position + 1 :] = float("nan")
        found = split_kv(query, keys, values, rows, positions, length, 0.3)
        for i, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
            for head in range(heads):
                of = head // (heads // key_heads)
                k = keys[row, of, :, : position + 1].double()
                v = values[row, of, : position + 1].double()
                expected = torch.softmax(query[i, head].double() @ k * 0.3, -1) @ v
                assert torch.allclose(found[i, head].double(), expected, atol=1e-5)
