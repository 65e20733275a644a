"""The default: PPO's clipped surrogate (arXiv 1707.06347, eq. 7) summed over tokens as Dr. GRPO does
(arXiv 2503.20783), with truncated importance weights from the sampler to the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field

from hone_worker.train.advantages import Advantages, group_advantages
from hone_worker.train.objectives.clipped import clip_ratios, clipped, surrogate
from hone_worker.train.objectives.masks import masked, mismatch_mask
from hone_worker.train.objectives.objective import LossInputs, LossOutputs, Needs, Objective, importance
from hone_worker.train.objectives.policy_options import DriftOptions, MismatchOptions, Unset
from hone_worker.train.objectives.ratios import log_ratio, weighed
from hone_worker.train.options import Positive
from hone_worker.train.sums import Metrics, PerRollout


class PolicyGradient(MismatchOptions, DriftOptions):
    type: Literal["policy_gradient"] = "policy_gradient"
    epsilon_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    epsilon_high: Positive = 0.2
    importance_cap: Positive = 2.0
    normalizer_tokens: Annotated[int, Field(ge=1)] | Unset = None
    scale_rewards: Literal["none", "group"] = "none"


def advantages(rewards: torch.Tensor, groups: torch.Tensor, options: PolicyGradient) -> Advantages:
    return group_advantages(rewards, groups, options.scale_rewards)


def loss(inputs: LossInputs, options: PolicyGradient) -> LossOutputs:
    """L = -sum w * min(rho A, clip(rho) A) / (R * C), rho = pi / pi_o, w = min(pi_o / pi_s, cap).

    w corrects for what lies between sampler and trainer (staleness, rounding) and is a constant; rho moves. C is
    `normalizer_tokens`, or the mean length of the operation's trained rollouts: then L is a mean over tokens, with
    each rollout that trains nothing counted as one of mean length.
    """
    low, high, advantage = options.epsilon_low, options.epsilon_high, inputs.advantages
    weight = weighed(importance(inputs.old, inputs.sampler).clamp(max=options.importance_cap), inputs)
    kept = mismatch_mask(inputs, options)
    if kept is not None:
        weight = weight * kept
    ratio = torch.exp(log_ratio(inputs, "token"))
    values = weight * surrogate(ratio, advantage, low, high)
    metrics = clipped(ratio, advantage, low, high, "token")
    return LossOutputs(
        -values.sum() / (inputs.rollouts * (options.normalizer_tokens or mean_length(inputs))),
        metrics if kept is None else {**metrics, "masked/mismatch": ~kept},
    )


def mean_length(inputs: LossInputs) -> torch.Tensor:
    lengths = inputs.rollout_tokens
    return (lengths.sum() / (lengths > 0).sum().clamp(min=1)).clamp(min=1.0)


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    return {**clip_ratios(sums), **masked(sums)}


def needs(options: PolicyGradient) -> Needs:
    return Needs(
        whole_rollouts=options.mismatch_mask == "sequence",
        reference=options.measure_kl is True,
        drift_sample=options.measure_kl is not False,
        compares_sampler=options.mismatch_mask != "none",
    )


OBJECTIVE = Objective(PolicyGradient, advantages, loss, report, needs)
