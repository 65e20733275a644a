"""The decoder against PEFT: mixed adapters, rows that join and leave, shared prefixes, a full cache."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_reference import reference_logprobs

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.choice import Choice, Stops, Update
from hone_worker.engine.decode import MAX_WAITING, Decoder
from hone_worker.engine.lean import LeanForward
from hone_worker.engine.sampling import SamplingParams
from hone_worker.process.errors import HoneWorkerError


class Run:
    """A decoder driven by hand, and what it said per choice."""

    def __init__(self, base: Base, **options: Any) -> None:
        self.base = base
        self.updates: list[Update] = []
        self.decoder = Decoder(base, self.updates.extend, **{"cache_bytes": 1 << 28, **options})

    def add(
        self,
        prompt: list[int],
        adapter: LoraWeights | None = None,
        *,
        index: int = 0,
        max_tokens: int = 20,
        stops: Stops | None = None,
        **sampling: Any,
    ) -> Choice:
        choice = Choice(
            index=index,
            prompt=prompt,
            adapter=adapter,
            sampling=SamplingParams(**sampling),
            stops=stops or Stops(),
            max_tokens=max_tokens,
            tokenizer=self.base.tokenizer,
        )
        self.decoder.enqueue([choice])
        return choice

    def finish(self, limit: int = 2000) -> None:
        for _ in range(limit):
            if not self.decoder.has_work():
                return
            self.decoder.step()
        raise AssertionError("the decoder did not finish")

    def of(self, choice: Choice) -> Update:
        (found,) = [u for u in self.updates if u.choice is choice]
        if found.error is not None:
            raise found.error
        return found


def prompt_of(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


def agree(base: Path, adapter: Path | None, choice: Choice, update: Update) -> None:
    expected = reference_logprobs(base, adapter, choice.prompt, update.token_ids, choice.sampling.temperature)
    difference = (expected - torch.tensor(update.logprobs)).abs()
    assert difference.mean() <= 1e-5, difference
    assert difference.max() <= 1e-3, difference


def test_mixed_batch_with_joins_and_leaves_agrees_with_peft(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    weights = [read_adapter(folder, tiny_base.model) for folder in adapter_folders]
    run = Run(tiny_base)
    made: list[tuple[Path | None, Choice]] = []
    for i in range(9):
        which = i % 3 - 1
        adapter = None if which < 0 else weights[which]
        folder = None if which < 0 else adapter_folders[which]
        temperature = (1.0, 0.7, 0.0)[i // 3]
        choice = run.add(
            prompt_of(1 + 17 * i, i), adapter, max_tokens=5 + 4 * i, seed=i, temperature=temperature
        )
        made.append((folder, choice))
        for _ in range(3):
            run.decoder.step()
    run.finish()
    for folder, choice in made:
        agree(tiny_folder, folder, choice, run.of(choice))
        assert len(run.of(choice).token_ids) == choice.max_tokens
    # The comparison can fail: the adapters are far from the base and from each other.
    folder, choice = made[1]
    wrong = reference_logprobs(tiny_folder, None, choice.prompt, run.of(choice).token_ids)
    assert folder is not None
    assert (wrong - torch.tensor(run.of(choice).logprobs)).abs().max() > 0.1


def test_a_conversation_reuses_its_history_and_others_copy_it(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    weights = read_adapter(adapter_folders[0], tiny_base.model)
    run = Run(tiny_base)
    first = run.add(prompt_of(60, 1), weights, max_tokens=30, seed=1)
    run.finish()
    before = run.decoder.tokens_prefilled
    history = first.prompt + run.of(first).token_ids
    turns = [run.add(history + prompt_of(10, 2 + i), weights, max_tokens=8, seed=i) for i in range(3)]
    other = run.add(history + prompt_of(10, 9), None, max_tokens=8, seed=9)
    run.finish()
    for turn in turns:
        agree(tiny_folder, adapter_folders[0], turn, run.of(turn))
    # Another policy's history is not its own.
    agree(tiny_folder, None, other, run.of(other))
    # Three times the new message and the last token sampled; the other policy prefills all.
    assert run.decoder.tokens_prefilled - before == 3 * 10 + len(other.prompt) - 1


def test_a_groups_prompt_is_prefilled_once(tiny_base: Base, tiny_folder: Path) -> None:
    run = Run(tiny_base)
    prompt = prompt_of(200, 5)
    group = [run.add(prompt, index=i, max_tokens=6, seed=3) for i in range(8)]
    run.finish()
    assert run.decoder.tokens_prefilled == len(prompt) - 1
    assert len({tuple(run.of(c).token_ids) for c in group}) > 4
    agree(tiny_folder, None, group[7], run.of(group[7]))


def test_a_small_cache_delays_but_never_spoils(tiny_base: Base, tiny_folder: Path) -> None:
    run = Run(tiny_base, cache_bytes=0)
    per_token = run.decoder.cache.bytes_per_token
    run = Run(tiny_base, cache_bytes=per_token * 700, max_rows=8)
    made = [run.add(prompt_of(100, i), max_tokens=150, seed=i) for i in range(6)]
    while run.decoder.has_work():
        run.decoder.step()
        assert run.decoder.table.kept_bytes <= 700 * per_token
    for choice in made:
        agree(tiny_folder, None, choice, run.of(choice))
    assert run.decoder.running == 0 and run.decoder.waiting == 0


def test_prompts_longer_than_a_chunk(
    tiny_base: Base, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone_worker.engine.decode.PREFILL_TOKENS", 48)
    run = Run(tiny_base)
    made = [run.add(prompt_of(length, length), max_tokens=4, seed=1) for length in (100, 7, 131, 48, 49)]
    run.finish()
    for choice in made:
        agree(tiny_folder, None, choice, run.of(choice))


def test_a_seed_repeats_and_torchs_generator_is_left_alone(tiny_base: Base) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()

    def once(seed: int | None) -> list[list[int]]:
        run = Run(tiny_base)
        made = [run.add(prompt_of(30, 1), index=i, max_tokens=40, seed=seed) for i in range(2)]
        run.finish()
        return [run.of(c).token_ids for c in made]

    assert once(11) == once(11)
    assert once(11) != once(12)
    assert once(11)[0] != once(11)[1]
    assert once(None) != once(None)
    assert torch.equal(before, torch.get_rng_state())


def test_cancelled_rows_leave_at_the_next_step(tiny_base: Base) -> None:
    run = Run(tiny_base)
    stays = run.add(prompt_of(10, 1), max_tokens=30)
    goes = run.add(prompt_of(10, 2), max_tokens=400)
    for _ in range(4):
        run.decoder.step()
    had = len(goes.logprobs)
    assert had > 0 and run.decoder.running == 2
    goes.cancelled = True
    run.decoder.step()
    assert len(goes.logprobs) == had and run.decoder.running == 1
    run.finish()
    assert len(run.of(stays).token_ids) == 30
    assert not [u for u in run.updates if u.choice is goes]


def test_an_adapter_that_gives_nan_fails_its_own_rows_only(
    tiny_base: Base, adapter_folders: list[Path]
) -> None:
    good = read_adapter(adapter_folders[0], tiny_base.model)
    huge = LoraWeights(good.spec, {p: (a * 1e20, b * 1e20) for p, (a, b) in good.tensors.items()})
    run = Run(tiny_base)
    bad = run.add(prompt_of(10, 1), huge)
    fine = run.add(prompt_of(10, 2), None, max_tokens=10)
    run.finish()
    with pytest.raises(HoneWorkerError, match="finite"):
        run.of(bad)
    assert all(math.isfinite(v) for v in run.of(fine).logprobs)


def test_a_step_that_fails_fails_its_requests_and_the_next_work(
    tiny_base: Base, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tiny_base)
    broken = run.add(prompt_of(10, 1))
    with monkeypatch.context() as patch:
        patch.setattr("hone_worker.engine.decode.sample", lambda *_: 1 / 0)
        run.decoder.step()
    with pytest.raises(HoneWorkerError, match="engine failed") as caught:
        run.of(broken)
    assert caught.value.status == 500 and "ZeroDivision" not in caught.value.message
    again = run.add(prompt_of(10, 1), max_tokens=5)
    run.finish()
    agree(tiny_folder, None, again, run.of(again))


def test_the_queue_is_bounded(tiny_base: Base) -> None:
    run = Run(tiny_base)
    one = run.add(prompt_of(4, 1))
    run.decoder.enqueue([one] * (MAX_WAITING - 1))
    with pytest.raises(HoneWorkerError) as caught:
        run.decoder.enqueue([one])
    assert caught.value.status == 503


@pytest.mark.parametrize("seed", range(4))
def test_any_batch_says_what_a_cold_forward_says(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path], seed: int
) -> None:
    """Random mixtures: policies mixed, prompts that share beginnings, joins, leaves, turns that grow, small caches."""
    draw = random.Random(seed)
    weights: list[LoraWeights | None] = [None, *(read_adapter(f, tiny_base.model) for f in adapter_folders)]
    folders: list[Path | None] = [None, *adapter_folders]
    run = Run(tiny_base, max_rows=draw.choice((3, 8, 64)), cache_bytes=1 << draw.choice((20, 28)))
    shared = [prompt_of(draw.randint(1, 120), 100 * seed + i) for i in range(3)]
    made: list[tuple[int, Choice]] = []
    for number in range(24):
        policy = draw.randrange(3)
        prompt = draw.choice(shared) + prompt_of(draw.randint(0, 30) or 1, 1000 + number)
        ended = [(p, c) for p, c in made if any(u.choice is c and u.finish_reason for u in run.updates)]
        if ended and draw.random() < 0.5:
            policy, before = draw.choice(ended)
            prompt = (before.ids + prompt_of(draw.randint(1, 20), 2000 + number))[:400]
        options = {"temperature": draw.choice((1.0, 0.0, 0.6)), "seed": number}
        choice = run.add(prompt, weights[policy], max_tokens=draw.randint(1, 40), **options)
        made.append((policy, choice))
        for _ in range(draw.randint(0, 12)):
            run.decoder.step()
        if draw.random() < 0.1:
            draw.choice(made)[1].cancelled = True
    run.finish()
    told = {id(u.choice): u for u in run.updates}
    answered = [(folders[p], c, told[id(c)]) for p, c in made if id(c) in told]
    assert len(answered) >= 12
    for folder, choice, update in answered:
        agree(tiny_folder, folder, choice, update)


def test_the_lean_forward_is_the_one_that_is_tested_here(tiny_base: Base) -> None:
    assert isinstance(Run(tiny_base).decoder._forward, LeanForward)


def test_the_models_parameters_are_the_joined_weights(tiny_base: Base) -> None:
    forward = Run(tiny_base).decoder._forward
    assert isinstance(forward, LeanForward)
    again = LeanForward(tiny_base)
    model: Any = tiny_base.model
    for layer, joined in zip(model.model.layers, again.layers, strict=True):
        own = layer.self_attn.k_proj.weight
        assert own.untyped_storage().data_ptr() == joined.qkv.weight.untyped_storage().data_ptr()
        assert not own.requires_grad
