"""Steps that the memory is too small for: recomputed layers, micro-batches in halves, and the same gradients."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_reference as reference
from engine_process import LIMIT
from train_reference import Forest
from train_tiny import (
    last_gradient,
    relative_difference,
    save_policy,
    tiny_base,
    trained_adapter,
)

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.base.free_memory import out_of_memory
from hone_worker.base.model import wrap_base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import logprobs
from hone_worker.train.memory import (
    BACKWARD,
    PARAMETER_BYTES,
    STEP_TOKENS,
    TrainerMemory,
    measure,
    step_bytes,
)
from hone_worker.train.operation import train_steps
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data

GSPO = {"type": "gspo"}


def run(base, forest: Forest, policy: Path, staging: Path, memory=None, **changes) -> list[dict]:
    given = reference.config(
        **{
            "staging": str(staging),
            "checkpoint": str(policy),
            "packing": "tree",
            "plan": [[forest.leaves()[:5], forest.leaves()[5:]]],
            "optimizer": {"learning_rate": 0.01, "max_grad_norm": 1e9, "warmup_steps": 0},
            **changes,
        }
    )
    data, config = parse_step_data(reference.body(forest, given))
    return list(train_steps(base, data, config, lambda: False, memory))


def files(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@contextmanager
def room_for(base, tokens: int, times: int = 1000):
    """A backward of more tokens fails in the middle: the gradients of the layers above are computed then."""
    struck = []

    def strike(_module, _inputs, outputs):
        gradient = outputs[0]
        if gradient.shape[0] * gradient.shape[1] > tokens and len(struck) < times:
            struck.append(gradient.shape[1])
            raise torch.OutOfMemoryError("injected")

    hook = decoder_layers(base.model)[0].register_full_backward_hook(strike)
    try:
        yield struck
    finally:
        hook.remove()


@pytest.mark.parametrize("packing", ["tree", "rows"])
@pytest.mark.parametrize("steps", [1, 2])
def test_recomputed_layers_give_the_same_bytes(base, policy, forest, tmp_path, packing, steps):
    leaves = forest.leaves()
    plan = [[leaves[:5], leaves[5:]]] if steps == 1 else [[leaves[::2]], [leaves[1::2]]]
    given = {"packing": packing, "plan": plan}
    run(base, forest, policy, tmp_path / "kept", **given)
    on = TrainerMemory(base, recompute="on")
    forwards = [layer.forward for layer in decoder_layers(base.model)]
    events = run(base, forest, policy, tmp_path / "again", on, **given)
    assert files(tmp_path / "kept") == files(tmp_path / "again")
    assert events[-1]["metrics"]["recomputed_micro_batches"] == 2
    assert [layer.forward for layer in decoder_layers(base.model)] == forwards


def test_joined_adapters_are_recomputed_to_the_same_bytes(policy, forest, tmp_path):
    joined = wrap_base(tiny_base().model, None, "tiny", 2048, ComputePaths(lora="joined"))
    run(joined, forest, policy, tmp_path / "kept")
    run(joined, forest, policy, tmp_path / "again", TrainerMemory(joined, recompute="on"))
    assert files(tmp_path / "kept") == files(tmp_path / "again")


def saved_bytes(base, weights, micro_batch, recompute: bool) -> int:
    """What the graph of a forward holds, seen from outside: the tensors that no weight owns."""
    kept: dict[int, int] = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made = logprobs(base, weights, micro_batch, recompute=recompute)
    own = {t.untyped_storage().data_ptr() for t in (*base.model.parameters(), *weights.parameters())}
    del made
    return sum(size for at, size in kept.items() if at not in own)


def test_the_measure_of_a_token_is_what_the_forward_keeps(base, policy, forest):
    weights = trained_adapter(base).trainable()
    data, config = parse_step_data(reference.body(forest, reference.config(packing="tree")))
    config = replace_plan(config, [[forest.leaves()]])
    (step,) = mini_batches(data, config, torch.arange(data.completions, dtype=torch.float64) - 3)
    (micro_batch,) = step.micro_batches
    kept = measure(base, weights)
    plain = saved_bytes(base, weights, micro_batch, recompute=False)
    # Not every token is trained, and the probe counts a place in the loss for each.
    assert plain <= kept.plain * micro_batch.tokens * 1.02 and plain > kept.plain * micro_batch.tokens * 0.8
    assert kept.recomputed < kept.plain * 0.7
    assert kept.of(100, recompute=True) == int(100 * kept.recomputed * BACKWARD) + kept.logits


def replace_plan(config, plan):
    return config.model_copy(update={"plan": plan})


def test_a_backward_without_memory_is_done_again_in_halves(base, policy, forest, tmp_path):
    whole = run(base, forest, policy, tmp_path / "whole")
    largest = max(e["tokens"] for e in whole if e["event"] == "microbatch")
    with room_for(base, largest - 1) as struck:
        halved = run(base, forest, policy, tmp_path / "halves")
    assert struck == [largest]
    ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in ("halves", "whole"))
    assert relative_difference(ours, theirs) < 1e-6
    told = [e for e in halved if e["event"] == "split"]
    assert len(told) == 1 and "too little memory" in told[0]["message"]
    assert [(e["done"], e["total"]) for e in halved if e["event"] == "microbatch"][-1] == (3, 3)
    metrics = halved[-1]["metrics"]
    assert (
        metrics["split_micro_batches"] == 1
        and metrics["train_tokens"] == whole[-1]["metrics"]["train_tokens"]
    )
    assert metrics["loss"] == pytest.approx(whole[-1]["metrics"]["loss"], rel=1e-6)

    # The server keeps what was told in the plan: done again with it, and with enough memory, it is the same.
    run(base, forest, policy, tmp_path / "redone", plan=[recorded(forest, told)])
    assert files(tmp_path / "redone") == files(tmp_path / "halves")


def recorded(forest: Forest, told: list[dict]) -> list[list[int]]:
    plan = [forest.leaves()[:5], forest.leaves()[5:]]
    for event in told:
        at = next(i for i, m in enumerate(plan) if event["into"][0][0] in m)
        plan[at : at + 1] = event["into"]
    return plan


def test_what_failed_once_is_not_tried_again(base, policy, forest, tmp_path):
    leaves = forest.leaves()
    with room_for(base, 30) as struck:
        events = run(base, forest, policy, tmp_path / "s", plan=[[leaves[:4], leaves[4:6], leaves[6:]]])
    sizes = [e["tokens"] for e in events if e["event"] == "microbatch"]
    assert max(sizes) <= 30 and len(sizes) > 3
    assert len(struck) < events[-1]["metrics"]["split_micro_batches"] + 1


def first_look_fails(monkeypatch) -> None:
    """The first forward without a gradient finds no memory."""
    failed = []

    def forward(*args, **options):
        if not torch.is_grad_enabled() and len(failed) < 1:
            failed.append(args)
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
            )
        return logprobs(*args, **options)

    monkeypatch.setattr("hone_worker.train.operation.logprobs", forward)


def test_a_sample_that_is_parted_leaves_the_plan_alone(base, policy, forest, tmp_path, monkeypatch):
    """What the drift is measured on is taken from several micro-batches of the plan."""
    monkeypatch.setattr("hone_worker.train.rows.SAMPLE_SHARE", 1.0)
    whole = run(base, forest, policy, tmp_path / "whole")
    first_look_fails(monkeypatch)
    parted = run(base, forest, policy, tmp_path / "parted")
    kinds = [e["event"] for e in parted]
    assert kinds.count("warning") == 1 and "split" not in kinds
    one, other = (events[-1]["metrics"] for events in (whole, parted))
    assert other["split_micro_batches"] == 0 and one["kl_tokens"] == other["kl_tokens"] > 20
    assert one["kl"] == pytest.approx(other["kl"], rel=1e-4)
    assert files(tmp_path / "whole") == files(tmp_path / "parted")


def test_old_logprobs_find_too_little_memory_too(base, policy, forest, tmp_path, monkeypatch):
    leaves = forest.leaves()
    plan = [[leaves[::2]], [leaves[1::2]]]
    run(base, forest, policy, tmp_path / "whole", plan=plan)
    first_look_fails(monkeypatch)
    events = run(base, forest, policy, tmp_path / "halves", plan=plan)
    assert [e["event"] for e in events].count("split") == 1
    ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in ("halves", "whole"))
    assert relative_difference(ours, theirs) < 1e-5


def test_what_cannot_be_parted_is_recomputed_and_then_fails_by_name(base, policy, forest, tmp_path):
    one = Forest()
    for reward, group in ((1.0, 0), (0.0, 0)):
        rollout = one.rollout(reward, group)
        first = one.add(replace(forest.completions[0], rollout=rollout))
        one.add(replace(forest.completions[1], rollout=rollout, parent=first))
    given = {"plan": [[one.leaves()]], "loss": {"type": "dpo", "beta": 0.1}}
    run(base, one, policy, tmp_path / "whole", **given)
    with room_for(base, 1, times=1):
        events = run(base, one, policy, tmp_path / "again", **given)
    assert files(tmp_path / "whole") == files(tmp_path / "again")
    assert events[-1]["metrics"]["recomputed_micro_batches"] == 1
    assert ["cannot be parted" in e["message"] for e in events if e["event"] == "warning"] == [True]

    with room_for(base, 1), pytest.raises(HoneWorkerError, match="too little memory") as caught:
        run(base, one, policy, tmp_path / "none", **given)
    assert caught.value.code == "out_of_memory" and os.listdir(tmp_path / "none") == []
    off = TrainerMemory(base, recompute="off")
    with room_for(base, 1) as struck, pytest.raises(HoneWorkerError, match="too little memory"):
        run(base, one, policy, tmp_path / "off", off, **given)
    assert len(struck) == 1


def test_a_rollout_is_not_parted_where_the_objective_looks_at_it_whole(base, policy, forest):
    data, config = parse_step_data(reference.body(forest, reference.config(packing="tree")))
    config = replace_plan(config, [[forest.leaves()]])
    advantages = torch.arange(data.completions, dtype=torch.float64) - 3
    for wanted in ({}, {"whole_rollouts": True}, {"whole_groups": True}):
        (step,) = mini_batches(data, config, advantages, **wanted)
        (whole,) = step.micro_batches
        parts = whole.made.halves(whole)
        assert len(parts) == 2
        assert torch.cat([m.position for m in parts]).sort().values.equal(whole.position.sort().values)
        of = [
            set(data.rollout_group[m.rollout].tolist() if "whole_groups" in wanted else m.rollout.tolist())
            for m in parts
        ]
        assert not wanted or not of[0] & of[1]
        # Advantages that changed since are those of the halves.
        (changed,) = step.with_advantages(advantages * 2).micro_batches
        parts = changed.made.halves(changed)
        assert all(m.advantage.equal(advantages[m.completion] * 2) for m in parts)


def test_the_budget_decides_what_is_recomputed_and_what_is_parted(
    base, policy, forest, tmp_path, monkeypatch
):
    kept = measure(base, trained_adapter(base).trainable())
    sizes = [e["tokens"] for e in run(base, forest, policy, tmp_path / "all") if e["event"] == "microbatch"]
    for room, expected in (
        (kept.of(max(sizes), False) + 1, (0, 0)),
        (kept.of(max(sizes), False) - 1, (0, 1)),
        (kept.of(max(sizes), True) - 1, (1, 2)),
    ):
        monkeypatch.setattr(TrainerMemory, "budget", lambda _self, room=room: room)
        metrics = run(base, forest, policy, tmp_path / f"{room}")[-1]["metrics"]
        found = (metrics["split_micro_batches"], metrics["recomputed_micro_batches"])
        assert found[0] == expected[0] and found[1] >= expected[1], (room, found)
    off = TrainerMemory(base, recompute="off")
    metrics = run(base, forest, policy, tmp_path / "off", off)[-1]["metrics"]
    assert metrics["recomputed_micro_batches"] == 0 and metrics["split_micro_batches"] > 0


def test_the_budget_is_the_free_memory_less_what_others_will_take(base, monkeypatch):
    monkeypatch.setattr("hone_worker.train.memory.free_bytes", lambda _device: 1000)
    assert TrainerMemory(base).budget() == 900
    assert TrainerMemory(base, reserved=lambda: 600).budget() == 360
    assert TrainerMemory(base, reserved=lambda: 6000).budget() == 0


def test_errors_of_the_allocators_are_told_from_others():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


LIMITED = """
import re, resource, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import torch
from test_train_memory import large_forest, run, tiny_base
from hone_worker.train import parts
from hone_worker.train.memory import TrainerMemory, measure
torch.set_num_threads(1)
parts.PART_TOKENS = 10_000  # as it is planned
folder, policy = Path({folder!r}), Path({policy!r})
base = tiny_base(hidden=64, layers=2, dtype=torch.float64)
forest = large_forest()
plan = [[forest.leaves()]]
whole = run(base, forest, policy, folder / "whole", plan=plan)
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + {room}, resource.RLIM_INFINITY))
halved = run(base, forest, policy, folder / "halves", plan=plan)
print(halved[-1]["metrics"]["split_micro_batches"])
"""


def large_forest() -> Forest:
    random = torch.Generator().manual_seed(0)
    forest = Forest()
    for i in range(10):
        ids = torch.randint(40, (300,), generator=random).tolist()
        rollout = forest.rollout(float(i), 0)
        sampled = [0] * 100 + [1] * 200
        forest.add(reference.Completion(ids, sampled, rollout, logprobs=[0.0] * 100 + [-5.0] * 200))
    return forest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space are Linux's")
def test_a_real_limit_of_the_memory_is_survived(tmp_path):
    """The system's own: its allocator says no, in the words that are looked for."""
    base = tiny_base(hidden=64, layers=2, dtype=torch.float64)
    policy = save_policy(tmp_path / "policy", base, trained_adapter(base))
    needed = measure(base, trained_adapter(base).trainable()).of(10 * 300, False)
    here = Path(__file__).parent
    code = LIMITED.format(
        paths=[str(here), str(here.parent)], folder=str(tmp_path), policy=str(policy), room=needed * 6 // 10
    )
    # Freed memory goes back to the system at once: then the limit is about what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
    ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in ("halves", "whole"))
    assert relative_difference(ours, theirs) < 1e-6


def test_a_step_needs_its_adapter_and_a_micro_batch_recomputed_where_it_may_be():
    base = tiny_base()
    memory = TrainerMemory(base)
    needed = step_bytes(memory)
    (kept,) = memory._kept.values()
    (spec,) = memory._kept
    assert spec.r == 16
    adapter = needed - kept.of(STEP_TOKENS, True)
    assert adapter > 0
    assert adapter % (PARAMETER_BYTES * 16) == 0
    # Without recomputation every layer keeps what it computed.
    assert step_bytes(TrainerMemory(base, recompute="off")) > needed
