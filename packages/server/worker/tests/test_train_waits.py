"""What makes the processor wait for a GPU: numbers that are read one by one, counted in the middle of a step."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
import train_reference as reference
from test_packing import adapter, family, micro_batches, random_forest
from torch.utils._python_dispatch import TorchDispatchMode
from train_tiny import save_policy, tiny_base, trained_adapter

from hone_worker.packing.transfer import on_device
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train import forward, operation
from hone_worker.train.forward import logprobs
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data


class Reads(TorchDispatchMode):
    """Counts how often a number leaves a tensor: `item`, `float`, `if`, `tolist` of one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def as_on_a_gpu(monkeypatch):
    given = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    monkeypatch.setattr(forward, "unread_mask", lambda _device: given)


def given(tmp_path, **options):
    base, forest = tiny_base(), random_forest(5)
    of_rollout: dict[int, list[int]] = {}
    for leaf in forest.leaves():
        of_rollout.setdefault(forest.completions[leaf].rollout, []).append(leaf)
    plan = [list(of_rollout.values())]
    config = reference.config(plan=plan, packing="tree", **options)
    config |= {
        "checkpoint": str(save_policy(tmp_path / "policy", base, trained_adapter(base))),
        "staging": str(tmp_path / "next"),
    }
    return base, *parse_step_data(reference.body(forest, config))


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"type": "grpo", "beta": 0.1, "entropy_coef": 0.1},
        {"type": "gspo"},
        {"type": "cispo", "mismatch_mask": "token"},
    ],
)
def test_a_micro_batch_reads_one_number_and_that_from_the_processors_memory(tmp_path, monkeypatch, loss):
    """Whether its advantages move anything. All else is read when the optimizer step is computed."""
    as_on_a_gpu(monkeypatch)
    base, data, config = given(tmp_path, loss=loss)
    with Reads() as reads:
        at: list[tuple[str, int]] = []
        for event in train_steps(base, data, config, lambda: False):
            at.append((event["event"], reads.count))
    between = Counter(
        now - before for (_, before), (kind, now) in pairwise(at) if kind in ("microbatch", "heartbeat")
    )
    assert sum(between.values()) >= 4
    # Which sequences the KL is sampled on is decided once an operation, from the step data in the processor's memory.
    choosing = 0 if "beta" in loss else 1
    assert sum(count for numbers, count in between.items() if numbers > 1) == choosing


def test_the_mask_that_nobody_reads_changes_nothing(monkeypatch):
    for name in ("qwen3", "llama", "gemma3", "mistral"):
        base = family(name)
        weights, packed = adapter(base), micro_batches(random_forest(1), "tree")
        with torch.no_grad():
            plain = logprobs(base, weights, packed[0])
            with monkeypatch.context() as patch:
                as_on_a_gpu(patch)
                found = logprobs(base, weights, packed[0])
        assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True)), name


def test_numbers_that_are_not_finite_never_reach_the_weights(tmp_path, monkeypatch):
    base, data, config = given(tmp_path)
    calls = 0

    def broken(*args, **options):
        nonlocal calls
        calls += 1
        found, entropy = logprobs(*args, **options)
        return (found * float("nan") if calls == 2 else found), entropy

    for module in (operation, forward):
        monkeypatch.setattr(module, "logprobs", broken)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("the weights moved"))
    with pytest.raises(HoneWorkerError) as caught:
        list(train_steps(base, data, config, lambda: False))
    assert caught.value.code == "non_finite" and calls >= 4
    assert not list((tmp_path / "next").iterdir())


def test_what_is_on_the_device_already_stays_there():
    x = torch.ones(3, dtype=torch.float64)
    assert on_device(x, torch.device("cpu")) is x
    assert on_device(x, torch.device("cpu"), torch.float32).dtype == torch.float32
    assert on_device(None, torch.device("cpu")) is None
