"""Sums and counts of what a step measures. Those of several parts of the step data merge into those of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

Metrics = dict[str, float | int | None]


@dataclass
class Running:
    """Sum, count and extremes of a stream of values."""

    total: float = 0.0
    count: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: torch.Tensor) -> None:
        if values.numel() == 0:
            return
        values = values.double()
        self.merge(Running(float(values.sum()), values.numel(), float(values.min()), float(values.max())))

    def merge(self, other: Running) -> None:
        self.total += other.total
        self.count += other.count
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def min(self) -> float | None:
        return self.low if self.count else None

    @property
    def max(self) -> float | None:
        return self.high if self.count else None


class PerRollout:
    """A value of each token, summed by rollout. Booleans count as 0 and 1."""

    def __init__(self, rollouts: int) -> None:
        self.total = torch.zeros(rollouts, dtype=torch.float64)
        self.tokens = torch.zeros(rollouts, dtype=torch.int64)

    def add(self, values: torch.Tensor, rollout: torch.Tensor) -> None:
        self.total.index_add_(0, rollout, values.cpu().double())
        self.tokens.index_add_(0, rollout, torch.ones_like(rollout))

    def merge(self, other: PerRollout) -> None:
        self.total += other.total
        self.tokens += other.tokens

    @property
    def mean(self) -> float | None:
        """Over all tokens."""
        tokens = int(self.tokens.sum())
        return float(self.total.sum()) / tokens if tokens else None

    @property
    def means(self) -> Running:
        """Over rollouts, each with the mean of its own tokens."""
        running = Running()
        counted = self.tokens > 0
        running.add(self.total[counted] / self.tokens[counted])
        return running


# torch's quantile takes no more.
_MOST = 1 << 24


def highest(values: torch.Tensor, counted: torch.Tensor, share: float) -> torch.Tensor:
    """Which values reach the quantile above which `share` of those that are counted lie, and are counted.

    The quantile lies between the two nearest values by their distance, as in TRL's `get_high_entropy_mask`.
    """
    some = values[counted].float()
    if len(some) == 0:
        return torch.zeros_like(counted)
    if len(some) <= _MOST:
        floor = torch.quantile(some, 1 - share)
    else:
        floor = some.sort().values[int((1 - share) * (len(some) - 1))]
    return (values >= floor) & counted
