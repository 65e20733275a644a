"""What a training step tells about itself, under TRL's names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from hone_worker.train.advantages import Advantages
from hone_worker.train.batch import Batch
from hone_worker.train.loss import PolicyLoss, importance
from hone_worker.train.rows import MicroBatch, sampled_tokens, trained_completions

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


class Clipped:
    """Tokens clipped on one side, counted by rollout."""

    def __init__(self, rollouts: int) -> None:
        self.clipped = torch.zeros(rollouts, dtype=torch.int64)
        self.tokens = torch.zeros(rollouts, dtype=torch.int64)

    def add(self, where: torch.Tensor, rollout: torch.Tensor) -> None:
        self.clipped.index_add_(0, rollout, where.cpu().long())
        self.tokens.index_add_(0, rollout, torch.ones_like(rollout))

    @property
    def mean(self) -> float | None:
        """Over all tokens."""
        tokens = int(self.tokens.sum())
        return int(self.clipped.sum()) / tokens if tokens else None

    @property
    def shares(self) -> Running:
        """Over rollouts, each with the share of its own tokens."""
        running = Running()
        counted = self.tokens > 0
        running.add(self.clipped[counted].double() / self.tokens[counted])
        return running


class Episodes:
    """How long the trained rollouts are, in the tokens that the policy sampled and that train.

    A rollout that is only compared with the others counts nowhere here: none of its tokens is sent.
    """

    def __init__(self, batch: Batch) -> None:
        sampled = sampled_tokens(batch)
        lengths: dict[int, int] = {}
        cut: dict[int, bool] = {}
        rollout = batch.completion_rollout.tolist()
        for completion, trains in enumerate(trained_completions(batch)):
            if not trains:
                continue
            owner = rollout[completion]
            lengths[owner] = lengths.get(owner, 0) + int(sampled[completion])
            # A rollout ended as its last answer did.
            cut[owner] = bool(batch.completion_cut[completion])
        self.length = Running()
        self.length.add(torch.tensor(list(lengths.values())))
        self.terminated = Running()
        self.terminated.add(torch.tensor([n for owner, n in lengths.items() if not cut[owner]]))
        self.clipped_ratio = sum(cut.values()) / len(cut) if cut else None
        self.tokens = sum(lengths.values()) + _prompt_tokens(batch, sampled, set(lengths))


def _prompt_tokens(batch: Batch, sampled: torch.Tensor, rollouts: set[int]) -> int:
    """Of the prompts that the conversations of these rollouts begin with; later turns of others not counted."""
    given = batch.completion_offsets.diff() - sampled
    return sum(
        int(given[completion])
        for completion, parent in enumerate(batch.completion_parent.tolist())
        if parent < 0 and int(batch.completion_rollout[completion]) in rollouts
    )


class StepMetrics:
    def __init__(self, batch: Batch) -> None:
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.entropy = Running()
        self.low = Clipped(batch.rollouts)
        self.high = Clipped(batch.rollouts)
        self.gap = SamplerGap()
        self.episodes = Episodes(batch)
        self.model_tokens = 0
        self.sequence_tokens = 0
        self.unpacked_micro_batches = 0

    def add(self, result: PolicyLoss, entropy: torch.Tensor, micro_batch: MicroBatch) -> None:
        self.entropy.add(entropy)
        self.low.add(result.low, micro_batch.rollout)
        self.high.add(result.high, micro_batch.rollout)
        self.model_tokens += micro_batch.tokens
        self.sequence_tokens += micro_batch.sequence_tokens
        self.unpacked_micro_batches += micro_batch.layout is None

    def report(
        self, batch: Batch, advantages: Advantages, learning_rate: float, num_tokens: int, seconds: float
    ) -> Metrics:
        """`num_tokens` is the model's count with this step's, `seconds` what this operation computed for."""
        rewards = batch.rollout_reward
        loss = sum(self.losses) / len(self.losses)
        low, high, episodes = self.low.mean, self.high.mean, self.episodes
        return {
            "loss": loss,
            "policy_loss": loss,
            "grad_norm": sum(self.grad_norms) / len(self.grad_norms),
            "learning_rate": learning_rate,
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=1)) if len(rewards) > 1 else None,
            "frac_reward_zero_std": advantages.equal_groups / advantages.groups,
            # The loss has no reference policy.
            "kl": None,
            "entropy": self.entropy.mean,
            "clip_ratio/low_mean": low,
            "clip_ratio/low_min": self.low.shares.min,
            "clip_ratio/high_mean": high,
            "clip_ratio/high_max": self.high.shares.max,
            # No token is clipped on both sides: one needs A < 0, the other A > 0.
            "clip_ratio/region_mean": None if low is None or high is None else low + high,
            "completions/mean_length": episodes.length.mean,
            "completions/min_length": episodes.length.min,
            "completions/max_length": episodes.length.max,
            "completions/clipped_ratio": episodes.clipped_ratio,
            "completions/mean_terminated_length": episodes.terminated.mean,
            "completions/min_terminated_length": episodes.terminated.min,
            "completions/max_terminated_length": episodes.terminated.max,
            "num_tokens": num_tokens,
            "sampling/sampling_logp_difference/mean": self.gap.difference.mean,
            "sampling/sampling_logp_difference/max": self.gap.difference.max,
            "sampling/importance_sampling_ratio/min": self.gap.ratio.min,
            "sampling/importance_sampling_ratio/mean": self.gap.ratio.mean,
            "sampling/importance_sampling_ratio/max": self.gap.ratio.max,
            "train_tokens": self.entropy.count,
            "model_tokens": self.model_tokens,
            "sequence_tokens": self.sequence_tokens,
            "unpacked_micro_batches": self.unpacked_micro_batches,
            "step_time": seconds,
        }
