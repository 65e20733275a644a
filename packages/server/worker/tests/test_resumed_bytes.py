"""Every kind of step, begun again by a process that reads what the one before wrote: the bytes of the uninterrupted run."""

import math
from pathlib import Path

import pytest
import torch
from test_losses_steps import CHANGES, by_rollout
from test_train_memory import files, run
from train_reference import Completion, Forest
from train_tiny import VOCABULARY, grown_forest, sample_logprobs, save_policy, tiny_base, trained_adapter

from hone_worker.train.memory import TrainerMemory
from hone_worker.train.objectives import OBJECTIVES
from hone_worker.train.objectives.custom import CUSTOM, load_objectives

EXAMPLE = Path(__file__).parents[4] / "examples" / "objectives" / "best_of_group.py"
#: Besides those that learn from rewards.
OTHERS = ["sft", "dpo", "bradley_terry", "distill", "custom"]


@pytest.fixture(scope="module")
def bases():
    return {dtype: tiny_base(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}


@pytest.fixture
def objective():
    def loss(name: str) -> dict:
        if name != "custom":
            return {"type": name, **CHANGES.get(name, {})}
        load_objectives(EXAMPLE, OBJECTIVES)
        return {"type": "custom", "name": "best_of_group", "sha256": CUSTOM["best_of_group"].sha256}

    yield loss
    CUSTOM.clear()


def pairs() -> Forest:
    """Three prompts, each with two ways to go on that no policy sampled."""
    random = torch.Generator().manual_seed(2)

    def ids(length: int) -> list[int]:
        return torch.randint(VOCABULARY, (length,), generator=random).tolist()

    forest = Forest()
    for group in range(3):
        prompt = ids(6)
        for reward in (1.0, 0.0):
            said = ids(4 + group)
            marks = [0] * len(prompt) + [1] * len(said)
            rollout = forest.rollout(reward, group)
            forest.add(Completion(suffix=prompt + said, sampled=marks, rollout=rollout, policy=-1))
    return forest


def case_of(name: str, policy: Path) -> tuple[Forest, dict]:
    """What is trained, in two optimizer steps where that is allowed."""
    if name in ("sft", "dpo", "bradley_terry"):
        forest = pairs()
        leaves = forest.leaves()
        return forest, {"plan": [[leaves[:2], leaves[2:4]], [leaves[4:]]]}
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.05)
    if name == "distill":
        forest.reference = [
            -1.0 if sampled else math.nan for c in forest.completions for sampled in c.sampled
        ]
    units = by_rollout(forest)
    return forest, {"plan": [[units[0] + units[1], units[2]], [[i for unit in units[3:] for i in unit]]]}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in (*CHANGES, *OTHERS)),
        *((name, torch.bfloat16) for name in ("policy_gradient", "gspo", "sft", "dpo")),
    ],
)
def test_a_resumed_run_has_the_bytes_of_the_uninterrupted_one(bases, objective, tmp_path, name, dtype):
    base = bases[dtype]
    first = save_policy(tmp_path / "policy", base, trained_adapter(base))
    forest, given = case_of(name, first)
    given = {**given, "loss": objective(name), "old_logprobs": "auto"}

    def runs(folder: Path, memory_of) -> list[dict[str, bytes]]:
        folder.mkdir()
        policy, made = first, []
        for number in (1, 2, 3):
            torch.rand(3)  # somebody else's draw
            events = run(
                base, forest, policy, folder / "staging", memory_of(), step=number, seed=number, **given
            )
            assert events[-1]["metrics"]["grad_norm"] > 0
            policy = (folder / "staging").rename(folder / str(number))
            made.append(files(policy))
        return made

    one = TrainerMemory(base)
    uninterrupted = runs(tmp_path / "uninterrupted", lambda: one)
    resumed = runs(tmp_path / "resumed", lambda: TrainerMemory(base))
    assert uninterrupted == resumed
    assert uninterrupted[1] != uninterrupted[2]
