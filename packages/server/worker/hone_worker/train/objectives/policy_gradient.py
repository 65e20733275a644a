"""The default: PPO's clipped surrogate (arXiv 1707.06347, eq. 7) summed over tokens as Dr. GRPO does
(arXiv 2503.20783), with truncated importance weights from the sampler to the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field

from hone_worker.train.advantages import Advantages, group_advantages
from hone_worker.train.objectives.masks import masked, mismatch_mask
from hone_worker.train.objectives.objective import LossInputs, LossOutputs, Needs, Objective, importance
from hone_worker.train.objectives.policy_options import MismatchOptions
from hone_worker.train.options import Positive
from hone_worker.train.sums import Metrics, PerRollout


class PolicyGradient(MismatchOptions):
    type: Literal["policy_gradient"] = "policy_gradient"
    epsilon_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    epsilon_high: Positive = 0.2
    importance_cap: Positive = 2.0
    normalizer_tokens: Annotated[int, Field(ge=1)] = 1024
    scale_rewards: Literal["none", "group"] = "none"
    measure_kl: bool = False


def advantages(rewards: torch.Tensor, groups: torch.Tensor, options: PolicyGradient) -> Advantages:
    return group_advantages(rewards, groups, options.scale_rewards)


def loss(inputs: LossInputs, options: PolicyGradient) -> LossOutputs:
    """L = -sum w * min(rho A, clip(rho) A) / (R * C), rho = pi / pi_o, w = min(pi_o / pi_s, cap).

    w corrects for what lies between sampler and trainer (staleness, rounding) and is a constant; rho moves.
    """
    low, high, advantage = 1 - options.epsilon_low, 1 + options.epsilon_high, inputs.advantages
    weight = importance(inputs.old, inputs.sampler).clamp(max=options.importance_cap)
    if inputs.weights is not None:
        weight = weight * inputs.weights
    kept = mismatch_mask(inputs, options)
    if kept is not None:
        weight = weight * kept
    ratio = torch.exp(inputs.logprobs - inputs.old.detach())
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    total = -(weight * surrogate).sum() / (inputs.rollouts * options.normalizer_tokens)
    ratio = ratio.detach()
    clipped = {"low": (ratio < low) & (advantage < 0), "high": (ratio > high) & (advantage > 0)}
    return LossOutputs(total, clipped if kept is None else {**clipped, "masked/mismatch": ~kept})


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    low, high = sums["low"], sums["high"]
    both = None if low.mean is None or high.mean is None else low.mean + high.mean
    return {
        "clip_ratio/low_mean": low.mean,
        "clip_ratio/low_min": low.means.min,
        "clip_ratio/high_mean": high.mean,
        "clip_ratio/high_max": high.means.max,
        # No token is clipped on both sides: one needs A < 0, the other A > 0.
        "clip_ratio/region_mean": both,
        **masked(sums),
    }


def needs(options: PolicyGradient) -> Needs:
    return Needs(whole_rollouts=options.mismatch_mask == "sequence", reference=options.measure_kl)


OBJECTIVE = Objective(PolicyGradient, advantages, loss, report, needs)
