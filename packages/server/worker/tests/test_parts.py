"""A planned micro-batch goes through in parts: cut where little is computed twice, and always in the same places."""

from itertools import chain, pairwise

import pytest
import torch
import train_reference as reference
from test_train_memory import files, room_for, run
from train_reference import Completion, Forest
from train_tiny import last_gradient, relative_difference, sample_logprobs

from hone_worker.packing.pack import pack
from hone_worker.train import parts
from hone_worker.train.parts import cuts, part_tokens
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data


def sequences(random: torch.Generator, groups: int) -> list[torch.Tensor]:
    """Groups that begin alike, in the planner's order."""
    found = []
    for group in range(groups):
        prompt = torch.randint(50, (int(torch.randint(1, 60, (), generator=random)),), generator=random)
        prompt[0] = group
        for _ in range(int(torch.randint(1, 7, (), generator=random))):
            length = int(torch.randint(1, 40, (), generator=random))
            found.append(torch.cat([prompt, torch.randint(50, (length,), generator=random)]))
    return sorted(found, key=lambda ids: ids.tolist())


def unique(ids: list[torch.Tensor]) -> int:
    return len({tuple(one[: end + 1].tolist()) for one in ids for end in range(len(one))})


@pytest.mark.parametrize("seed", range(60))
def test_parts_are_small_and_compute_little_twice(seed):
    random = torch.Generator().manual_seed(seed)
    ids = sequences(random, 8)
    found = cuts([[one] for one in ids], 90)
    bounds = [0, *found, len(ids)]
    pieces = [ids[low:high] for low, high in pairwise(bounds)]
    assert sum(map(unique, pieces)) <= unique(ids) * (1 + 1 / 32)
    # What begins like nothing before it is always a place to cut at.
    apart = [torch.full((30,), number) for number in range(20)]
    assert cuts([[one] for one in apart], 90) == list(range(3, 20, 3))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_was_parted_meanwhile_is_cut_in_the_same_places(seed):
    """The stored plan gets the halves of a part that found no memory: what lies around it must stay as it was."""
    random = torch.Generator().manual_seed(seed)
    units = [[one] for one in sequences(random, 12)]
    found = cuts(units, 90)
    bounds = [0, *found, len(units)]
    struck = int(torch.randint(len(bounds) - 1, (), generator=random))
    low, high = bounds[struck], bounds[struck + 1]
    assert cuts(units[:low], 90) == found[: max(0, struck - 1)]
    assert [high + cut for cut in cuts(units[high:], 90)] == found[struck + 1 :]
    middle = (low + high) // 2
    assert cuts(units[low:middle], 90) == [] and cuts(units[middle:high], 90) == []


def test_units_stay_together():
    unit = [torch.full((40,), 1), torch.full((40,), 2), torch.full((40,), 3)]
    assert cuts([unit, unit, unit], 50) == [1, 2]


def chains(policy) -> Forest:
    """Six rollouts of twelve tokens; those of a group share five of them."""
    forest = Forest()
    random = torch.Generator().manual_seed(3)
    for rollout in range(6):
        prompt = [rollout // 2 + 1, 5, 6, 7, 8]
        tokens = prompt + torch.randint(9, 30, (7,), generator=random).tolist()
        forest.add(
            Completion(
                rollout=forest.rollout(float(rollout % 2), rollout // 2),
                suffix=tokens,
                sampled=[0] * 5 + [1] * 7,
            )
        )
    sample_logprobs(forest, policy, noise=0.3)
    return forest


def test_the_gradient_is_that_of_the_whole_and_redone_it_has_the_same_bytes(
    base, policy, tmp_path, monkeypatch
):
    forest = chains(policy)
    plan = [[forest.leaves()]]
    whole = run(base, forest, policy, tmp_path / "whole", plan=plan)
    monkeypatch.setattr(parts, "PART_TOKENS", 20)
    for name in ("parted", "again"):
        parted = run(base, forest, policy, tmp_path / name, plan=plan)
    assert [len([e for e in each if e["event"] == "microbatch"]) for each in (whole, parted)] == [1, 3]
    assert files(tmp_path / "parted") == files(tmp_path / "again")
    ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in ("parted", "whole"))
    assert relative_difference(ours, theirs) < 1e-6
    for key in ("loss", "train_tokens", "model_tokens", "entropy", "split_micro_batches"):
        assert parted[-1]["metrics"][key] == pytest.approx(whole[-1]["metrics"][key], rel=1e-6), key

    # A part that finds no memory is told, and the plan with its halves gives the same bytes.
    with room_for(base, 10, times=1):
        halved = run(base, forest, policy, tmp_path / "halved", plan=plan)
    (told,) = [e for e in halved if e["event"] == "split"]
    first = forest.leaves()[: forest.leaves().index(told["into"][0][0])]
    rest = [leaf for leaf in forest.leaves() if leaf not in {*first, *chain(*told["into"])}]
    redone = [[part for part in (first, *told["into"], rest) if part]]
    run(base, forest, policy, tmp_path / "redone", plan=redone)
    assert files(tmp_path / "redone") == files(tmp_path / "halved")


def test_a_gpu_gets_what_is_planned_and_wholes_are_kept(policy, monkeypatch):
    assert part_tokens(torch.device("cuda")) is None and part_tokens(torch.device("cpu")) == 1024
    forest = chains(policy)
    data, config = parse_step_data(reference.body(forest, reference.config(packing="tree")))
    config = config.model_copy(update={"plan": [[forest.leaves()]]})
    advantages = torch.ones(data.completions, dtype=torch.float64)
    counts = [
        len(mini_batches(data, config, advantages, part=part, whole_groups=whole)[0].micro_batches)
        for part, whole in ((None, False), (5, False), (5, True))
    ]
    assert counts == [1, 3, 3]


def conversations(random: torch.Generator) -> list[torch.Tensor]:
    """Eight of 20 turns over one prompt: 8 to 16 sampled tokens, then 8 to 32 of a tool."""

    def ids(low: int, high: int) -> torch.Tensor:
        return torch.randint(1000, (int(torch.randint(low, high, (), generator=random)),), generator=random)

    prompt = ids(60, 61)
    turns = [[ids(8, 17), *([ids(8, 33)] if turn < 19 else [])] for _ in range(8) for turn in range(20)]
    rows = [turns[at : at + 20] for at in range(0, len(turns), 20)]
    return [torch.cat([prompt, *chain(*row)]) for row in rows]


@pytest.mark.parametrize("seed", range(5))
def test_of_long_conversations_hardly_a_token_goes_through_twice(seed):
    random = torch.Generator().manual_seed(seed)
    rollouts = sorted((one for _ in range(2) for one in conversations(random)), key=lambda ids: ids.tolist())
    bounds = [0, *cuts([[ids] for ids in rollouts], parts.PART_TOKENS), len(rollouts)]

    def tokens(ids: list[torch.Tensor]) -> int:
        return pack([one.numpy() for one in ids]).input_ids.numel()

    trained = sum(tokens(rollouts[low:high]) for low, high in pairwise(bounds))
    assert len(bounds) > 3 and trained <= 1.05 * tokens(rollouts)
