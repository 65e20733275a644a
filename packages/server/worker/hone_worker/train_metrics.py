"""What a training step tells about itself, under TRL's names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from hone_worker.advantages import Advantages
from hone_worker.batch import Batch
from hone_worker.loss import PolicyLoss, importance
from hone_worker.rows import MicroBatch

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
        self.total += float(values.sum())
        self.count += values.numel()
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def min(self) -> float | None:
        return self.low if self.count else None

    @property
    def max(self) -> float | None:
        return self.high if self.count else None


@dataclass
class SamplerGap:
    """Sampler against trainer, on tokens sampled from the very policy that this step starts from.

    Those of a truncated distribution (top_p < 1) are left out: there the two differ by right.

    The ratio is shown before its cap: what this watches for is an engine that computes something else.
    """

    difference: Running = field(default_factory=Running)
    ratio: Running = field(default_factory=Running)

    def add(self, start: torch.Tensor, micro_batch: MicroBatch) -> None:
        where = micro_batch.comparable
        start, sampler = start.cpu()[where], micro_batch.sampler[where]
        self.difference.add((start.double() - sampler.double()).abs())
        self.ratio.add(importance(start.double(), sampler.double()))


@dataclass
class StepMetrics:
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    entropy: Running = field(default_factory=Running)
    low: Running = field(default_factory=Running)
    high: Running = field(default_factory=Running)
    gap: SamplerGap = field(default_factory=SamplerGap)

    def add(self, result: PolicyLoss, entropy: torch.Tensor) -> None:
        self.entropy.add(entropy)
        self.low.add(result.low)
        self.high.add(result.high)

    def report(
        self, batch: Batch, advantages: Advantages, learning_rate: float, train_seconds: float
    ) -> Metrics:
        sampled = torch.cat([torch.zeros(1, dtype=torch.int64), batch.sampled.long().cumsum(0)])
        lengths = sampled[batch.completion_offsets].diff()
        length = Running()
        length.add(lengths[lengths > 0])
        rewards = batch.rollout_reward
        loss = sum(self.losses) / len(self.losses)
        clipped = self.low.total + self.high.total
        return {
            "loss": loss,
            "policy_loss": loss,
            "grad_norm": sum(self.grad_norms) / len(self.grad_norms),
            "learning_rate": learning_rate,
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=1)) if len(rewards) > 1 else None,
            "frac_reward_zero_std": advantages.equal_groups / advantages.groups,
            "entropy": self.entropy.mean,
            "clip_ratio/low_mean": self.low.mean,
            "clip_ratio/high_mean": self.high.mean,
            "clip_ratio/region_mean": clipped / self.low.count if self.low.count else None,
            "completions/mean_length": length.mean,
            "completions/min_length": length.min,
            "completions/max_length": length.max,
            "num_tokens": len(batch.tokens),
            "sampling/sampling_logp_difference/mean": self.gap.difference.mean,
            "sampling/sampling_logp_difference/max": self.gap.difference.max,
            "sampling/importance_sampling_ratio/min": self.gap.ratio.min,
            "sampling/importance_sampling_ratio/mean": self.gap.ratio.mean,
            "sampling/importance_sampling_ratio/max": self.gap.ratio.max,
            "train_tokens": self.entropy.count,
            "train_seconds": train_seconds,
        }
