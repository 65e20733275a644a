"""From rewards to advantages: each rollout against the mean of its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

# TRL's constant: keeps a group whose rewards hardly differ from dividing by nothing.
_STD_FLOOR = 1e-4

#: By the name that `scaleRewards` has for it: what the advantages of a group with these rewards are divided by.
SCALES: dict[str, Callable[[torch.Tensor], torch.Tensor | float]] = {
    "none": lambda _rewards: 1.0,
    "group": lambda rewards: rewards.std(correction=1) + _STD_FLOOR,
}


@dataclass(frozen=True)
class Advantages:
    values: torch.Tensor  # float64, one a rollout
    equal_groups: int  # groups whose rewards are all exactly equal: they teach nothing
    groups: int


def group_advantages(rewards: torch.Tensor, groups: torch.Tensor, scale_rewards: str) -> Advantages:
    """A = (r - mean of the group) / scale, the scale being one of SCALES.

    Every rewarded rollout counts in the baseline, also one that is itself masked from training.
    Rewards that are all exactly equal give exactly 0: the mean of three times 0.1 is not 0.1 in floating
    point, and that noise must not pass for a signal (least of all when it is divided by its own size).
    """
    values = torch.zeros_like(rewards, dtype=torch.float64)
    ids = groups.unique()
    equal = 0
    for group in ids:
        members = groups == group
        reward = rewards[members].double()
        if bool((reward == reward[0]).all()):
            equal += 1
            continue
        values[members] = (reward - reward.mean()) / SCALES[scale_rewards](reward)
    return Advantages(values, equal, len(ids))
