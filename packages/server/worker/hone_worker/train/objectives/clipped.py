"""PPO's clipped surrogate (arXiv 1707.06347, eq. 7), which GRPO and its relatives average in different ways."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import TokenLoss
from hone_worker.train.objectives.policy_options import ClipOptions, Clips
from hone_worker.train.objectives.ratios import log_ratio, sampler_correction
from hone_worker.train.sums import Metrics, PerRollout


def surrogate(
    ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float, delta: float | None = None
) -> torch.Tensor:
    """min(min(rho, delta) A, clip(rho, 1 - low, 1 + high) A); delta is INTELLECT-2's (arXiv 2505.07291)."""
    return torch.minimum(capped(ratio, delta) * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def capped(ratio: torch.Tensor, delta: float | None) -> torch.Tensor:
    return ratio if delta is None else ratio.clamp(max=delta)


def clipped(
    ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float, level: str
) -> dict[str, torch.Tensor]:
    """Which tokens, or at level "sequence" which rollouts, are at a bound that their advantage runs against."""
    ratio = ratio.detach()
    return {
        f"{level}_low": (ratio < 1 - low) & (advantages < 0),
        f"{level}_high": (ratio > 1 + high) & (advantages > 0),
    }


def clipped_loss(inputs: LossInputs, options: Clips, level: str) -> TokenLoss:
    low, high, delta = options.epsilon_low, options.epsilon_high, options.delta
    ratio = torch.exp(log_ratio(inputs, level))
    return TokenLoss(
        -surrogate(ratio, inputs.advantages, low, high, delta),
        ratio,
        sampler_correction(inputs, options),
        clipped(capped(ratio, delta), inputs.advantages, low, high, level),
    )


def token_loss(inputs: LossInputs, options: ClipOptions) -> TokenLoss:
    return clipped_loss(inputs, options, options.importance_level)


def clip_ratios(sums: Mapping[str, PerRollout]) -> Metrics:
    """TRL's names: over tokens, or over rollouts where the ratio is a rollout's."""
    level = "sequence" if "sequence_low" in sums else "token"
    low, high = sums[f"{level}_low"], sums[f"{level}_high"]
    of_low, of_high = (s.means.mean if level == "sequence" else s.mean for s in (low, high))
    return {
        "clip_ratio/low_mean": of_low,
        "clip_ratio/low_min": low.means.min,
        "clip_ratio/high_mean": of_high,
        "clip_ratio/high_max": high.means.max,
        # Nothing is clipped on both sides: one needs A < 0, the other A > 0.
        "clip_ratio/region_mean": None if of_low is None or of_high is None else of_low + of_high,
    }
