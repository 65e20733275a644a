"""The default: PPO's clipped surrogate (arXiv 1707.06347, eq. 7) summed over tokens as Dr. GRPO does
(arXiv 2503.20783), with truncated importance weights from the sampler to the trainer.

L = -sum w * min(rho A, clip(rho) A) / (R * C), rho = pi / pi_o, w = min(pi_o / pi_s, cap).

w corrects for what lies between sampler and trainer (staleness, rounding) and is a constant; rho moves. C is
`normalizer_tokens`, or the mean length of the operation's trained rollouts: then L is a mean over tokens, with
each rollout that trains nothing counted as one of mean length.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from hone_worker.train.objectives.clipped import clip_ratios, clipped, surrogate
from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import Mean, TokenLoss, policy_objective
from hone_worker.train.objectives.policy_options import (
    DEFAULT_IMPORTANCE_CAP,
    Correction,
    PolicyOptions,
    Unset,
)
from hone_worker.train.objectives.ratios import log_ratio, sampler_correction, weighed
from hone_worker.train.options import Positive


class PolicyGradient(PolicyOptions):
    type: Literal["policy_gradient"] = "policy_gradient"
    epsilon_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    epsilon_high: Positive = 0.2
    importance_cap: Positive | Unset = None
    normalizer_tokens: Annotated[int, Field(ge=1)] | Unset = None
    scale_rewards: Literal["none", "group", "batch"] = "none"
    sampler_correction: Correction = "token_truncate"
    sampler_correction_min: Positive | Unset = None

    @property
    def sampler_correction_max(self) -> float:
        """Older than its peers' option, and named otherwise."""
        return self.importance_cap or DEFAULT_IMPORTANCE_CAP


def token_loss(inputs: LossInputs, options: PolicyGradient) -> TokenLoss:
    low, high = options.epsilon_low, options.epsilon_high
    ratio = torch.exp(log_ratio(inputs, "token"))
    return TokenLoss(
        -surrogate(ratio, inputs.advantages, low, high),
        ratio,
        sampler_correction(inputs, options),
        clipped(ratio, inputs.advantages, low, high, "token"),
    )


def mean(options: PolicyGradient) -> Mean:
    def of(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
        return weighed(values, inputs).sum() / (
            inputs.rollouts * (options.normalizer_tokens or mean_length(inputs))
        )

    return of


def mean_length(inputs: LossInputs) -> torch.Tensor:
    lengths = inputs.rollout_tokens
    return (lengths.sum() / (lengths > 0).sum().clamp(min=1)).clamp(min=1.0)


OBJECTIVE = policy_objective(PolicyGradient, token_loss, mean, report_of=clip_ratios)
loss = OBJECTIVE.loss
