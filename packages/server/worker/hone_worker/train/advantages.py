"""From rewards to advantages: each rollout against the mean of its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

#: By the name that `std` has for it. TRL's GRPOTrainer has the first, its AsyncGRPOTrainer the second; the constants
#: keep rewards that hardly differ from being divided by nothing.
STDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sample": lambda rewards: rewards.std(correction=1) + 1e-4,
    "population": lambda rewards: rewards.std(correction=0) + 1e-8,
}


@dataclass(frozen=True)
class Advantages:
    values: torch.Tensor  # float64, one a rollout
    equal_groups: int  # groups whose rewards are all exactly equal: they teach nothing
    groups: int
    # float64, one a rollout: what differences of rewards were divided by; None: advantages are no such differences
    scale: torch.Tensor | None = None


def group_advantages(
    rewards: torch.Tensor,
    groups: torch.Tensor,
    scale_rewards: str,
    std: str = "sample",
    baseline: str = "mean",
) -> Advantages:
    """A = (r - baseline) / scale, the scale being 1, or a standard deviation of the group's or of all rewards.

    The baseline is the mean of the group, or of the others in it ("leave_one_out", RLOO, arXiv 2402.14740).
    Every rewarded rollout counts in baseline and scale, also one that is itself masked from training.
    Rewards that are all exactly equal give exactly 0: the mean of three times 0.1 is not 0.1 in floating
    point, and that noise must not pass for a signal (least of all when it is divided by its own size).
    """
    values = torch.zeros_like(rewards, dtype=torch.float64)
    scale = torch.ones_like(values)
    ids = groups.unique()
    equal = 0
    for group in ids:
        members = groups == group
        reward = rewards[members].double()
        if bool((reward == reward[0]).all()):
            equal += 1
            continue
        base = reward.mean()
        if baseline == "leave_one_out":
            base = (reward.sum() - reward) / (len(reward) - 1)
        compared = {"none": None, "group": reward, "batch": rewards.double()}[scale_rewards]
        if compared is not None:
            scale[members] = STDS[std](compared)
        values[members] = (reward - base) / scale[members]
    return Advantages(values, equal, len(ids), scale)


def normalized(advantages: Advantages, groups: torch.Tensor) -> Advantages:
    """By mean and deviation over the operation: RLOOTrainer's `normalize_advantages`. Groups of one do not count.

    The scale is multiplied everywhere, also in groups whose rewards are equal and whose advantages stay 0.
    """
    _, of, sizes = groups.unique(return_inverse=True, return_counts=True)
    values = advantages.values
    compared = values[sizes[of] > 1]
    if len(compared) < 2:
        return advantages
    deviation = STDS["sample"](compared)
    moved = (values - compared.mean()) / deviation
    scale = None if advantages.scale is None else advantages.scale * deviation
    return replace(advantages, values=torch.where(values == 0, values, moved), scale=scale)
