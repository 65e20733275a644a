"""On a GPU a micro-batch that does not fit goes through in smaller ones before any layer is computed again."""

from types import SimpleNamespace

import pytest
import torch
import train_reference as reference
from test_train_memory import files, room_for, run
from train_tiny import last_gradient, relative_difference, trained_adapter

from hone_worker.train import fit
from hone_worker.train.fit import least_tokens
from hone_worker.train.halves import first_half
from hone_worker.train.memory import TrainerMemory, measure
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data

LEAST = 8


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(fit, "least_tokens", lambda *_base: LEAST)


def room_of(base, monkeypatch, tokens: int, recompute: bool = False) -> None:
    """The memory that is free holds a micro-batch of so many tokens, and no larger one."""
    kept = measure(base, trained_adapter(base).trainable())
    room = int(kept.of(tokens, recompute) / fit._ROOM) + 1
    monkeypatch.setattr(TrainerMemory, "budget", lambda _self: room)


def recorded(plan, events):
    """The plan with what was told, as the server stores it."""
    plan = [[list(leaves) for leaves in step] for step in plan]
    for event in events:
        if event["event"] != "split":
            continue
        for step in plan:
            for at, leaves in enumerate(step):
                if event["into"][0][0] in leaves:
                    rest = [leaf for leaf in leaves if not any(leaf in part for part in event["into"])]
                    step[at : at + 1] = [*event["into"], *([rest] if rest else [])]
                    break
    return plan


def sizes(events):
    return [e["tokens"] for e in events if e["event"] == "microbatch"]


def test_on_a_processor_nothing_is_parted_that_can_be_computed_again():
    found = [least_tokens(torch.device(d), int(n)) for d in ("cpu", "cuda") for n in (0.6e9, 4e9)]
    assert found == [None, None, 8192, 4096]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_budget_decides_what_is_parted_and_only_then_what_is_recomputed(
    base, policy, forest, tmp_path, monkeypatch
):
    plan = [[forest.leaves()]]
    (whole,) = sizes(run(base, forest, policy, tmp_path / "all", plan=plan))
    found = {}
    for tokens in (whole, whole - 1, whole // 2 + 5, whole // 4 + 5, LEAST - 1):
        room_of(base, monkeypatch, tokens)
        events = run(base, forest, policy, tmp_path / f"{tokens}", plan=plan)
        metrics = events[-1]["metrics"]
        found[tokens] = (len(sizes(events)), metrics["recomputed_micro_batches"])
        if tokens >= whole // 2 + 5:
            assert max(sizes(events)) <= tokens
        ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in (f"{tokens}", "all"))
        assert relative_difference(ours, theirs) < 1e-6
        assert not [e for e in events if e["event"] == "warning"] or tokens < LEAST
    parts = [count for count, _ in found.values()]
    assert parts[:2] == [1, 2] and parts[3] > 2
    assert [recomputed for _, recomputed in found.values()][:3] == [0, 0, 0]
    # Parts that fit would be too small to keep the device busy: all of it is computed again, as it was planned.
    assert found[LEAST - 1][1] > 0

    room_of(base, monkeypatch, whole - 1)
    for recompute, expected in (("on", 1), ("off", 0)):
        memory = TrainerMemory(base, recompute=recompute)
        events = run(base, forest, policy, tmp_path / recompute, memory, plan=plan)
        assert (len(sizes(events)) == 1) is (recompute == "on")
        assert events[-1]["metrics"]["recomputed_micro_batches"] == expected


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    "loss", [{"type": "policy_gradient"}, {"type": "grpo", "beta": 0.1}, {"type": "gspo", "measureKl": True}]
)
def test_a_step_that_is_redone_with_what_was_told_has_the_same_bytes(
    base, policy, forest, tmp_path, monkeypatch, loss
):
    """Also where it looks at logprobs from before it: they are computed in the same parts."""
    leaves = forest.leaves()
    owners = [forest.completions[leaf].rollout for leaf in leaves]
    first = [leaf for leaf, owner in zip(leaves, owners, strict=True) if owner < 3]
    plan = [[first], [[leaf for leaf in leaves if leaf not in first]]]
    given = {"loss": loss, "old_logprobs": "trainer"}
    room_of(base, monkeypatch, 40)
    for room in (40, 10_000):
        events = run(base, forest, policy, tmp_path / "parted", plan=plan, **given)
        told = [e for e in events if e["event"] == "split"]
        assert told and all("message" not in e for e in told)
        assert events[-1]["metrics"]["split_micro_batches"] == len(told)
        room_of(base, monkeypatch, room)
        again = run(base, forest, policy, tmp_path / "redone", plan=recorded(plan, events), **given)
        assert not [e for e in again if e["event"] == "split"] and sizes(again) == sizes(events)
        assert files(tmp_path / "redone") == files(tmp_path / "parted")
        for name in ("redone", "parted"):
            for file in (tmp_path / name).iterdir():
                file.unlink()
            (tmp_path / name).rmdir()
        room_of(base, monkeypatch, 40)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_part_that_finds_no_memory_all_the_same_is_parted_again(
    base, policy, forest, tmp_path, monkeypatch
):
    plan = [[forest.leaves()]]
    room_of(base, monkeypatch, 60)
    planned = run(base, forest, policy, tmp_path / "planned", plan=plan)
    with room_for(base, max(sizes(planned)) - 1) as struck:
        events = run(base, forest, policy, tmp_path / "struck", plan=plan)
    assert struck and len(sizes(events)) > len(sizes(planned))
    assert [("message" in e) for e in events if e["event"] == "split"] == [False, True]
    run(base, forest, policy, tmp_path / "redone", plan=recorded(plan, events))
    assert files(tmp_path / "redone") == files(tmp_path / "struck")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(("wanted", "of"), [("whole_rollouts", "rollout"), ("whole_groups", "group")])
def test_parts_keep_together_what_an_objective_looks_at_as_a_whole(base, forest, monkeypatch, wanted, of):
    data, config = parse_step_data(reference.body(forest, reference.config(packing="tree")))
    config = config.model_copy(update={"plan": [[forest.leaves()]]})
    (step,) = mini_batches(data, config, torch.ones(data.completions), **{wanted: True})
    room_of(base, monkeypatch, 50)
    found = fit.Fit(TrainerMemory(base))
    found.plan(trained_adapter(base).trainable(), step.micro_batches)
    assert len(step.micro_batches) > 1 and found.split == 1
    owners = [
        set((data.rollout_group[m.rollout] if of == "group" else m.rollout).tolist())
        for m in step.micro_batches
    ]
    assert sum(map(len, owners)) == len(set().union(*owners))


@pytest.mark.parametrize(
    ("halves", "room", "expected"),
    [
        ([45, 55], 60, [45, 55]),
        ([45, 55], 50, [100]),  # neither busy nor without what is computed again
        ([35, 65], 70, [100]),
        ([50, 55], 52, [50, 55]),
    ],
)
def test_a_part_may_be_a_little_smaller_where_all_parts_fit(halves, room, expected):
    def one(tokens: int, *parts: int) -> SimpleNamespace:
        made = [one(part) for part in parts]
        return SimpleNamespace(
            tokens=tokens, made=SimpleNamespace(halves=lambda micro_batch: made or [micro_batch])
        )

    found = fit._parted(one(100, *halves), 50, lambda part: part.tokens <= room)
    assert [part.tokens for part in found] == expected


def ids(*runs: tuple[int, int]) -> torch.Tensor:
    return torch.cat([torch.full((length,), token) for token, length in runs])


def test_a_cut_lies_between_trees_and_within_one_only_where_there_is_no_other():
    two = [[ids((1, 30), (answer, 10))] for answer in range(10, 13)]
    five = [[ids((2, 30), (answer, 10))] for answer in range(10, 15)]
    assert first_half([*two, *five], packed=True) == 3
    assert first_half([*five, *two], packed=True) == 5
    # Halves by tokens would lie within the larger tree.
    assert first_half([*two, *five], packed=False) == 4
    alone = [[ids((1, 30), (answer, 10))] for answer in range(10, 14)]
    assert first_half(alone, packed=True) == 2
    # Where turns branch off, what is shared is least at the root.
    turns = [ids((1, 4), (2, 40)), ids((1, 4), (2, 20), (3, 20)), ids((1, 4), (5, 50))]
    assert first_half([[one] for one in turns], packed=True) == 2
    # A unit is never parted.
    assert first_half([[one[0] for one in two], [one[0] for one in five]], packed=True) == 1


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_tree_whose_halves_would_compute_much_twice_is_not_parted(base, policy, monkeypatch, tmp_path):
    forest = reference.Forest()
    for answer in range(6):
        prompt, sampled = [1, 2, 3, 4] * 10, [5 + answer] * 6
        rollout = forest.rollout(float(answer), 0)
        marks = [0] * len(prompt) + [1] * len(sampled)
        forest.add(reference.Completion(prompt + sampled, marks, rollout, logprobs=[-2.0] * len(marks)))
    plan = [[forest.leaves()]]
    room_of(base, monkeypatch, 60)
    events = run(base, forest, policy, tmp_path / "one", plan=plan)
    assert len(sizes(events)) == 1
    assert events[-1]["metrics"]["recomputed_micro_batches"] == 1
