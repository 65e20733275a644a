"""RLOO (arXiv 2402.14740): REINFORCE with the mean of the others as the baseline, the KL in the reward, and, as in
TRL's RLOOTrainer, PPO's clip on the ratio of the whole rollout (the product of its tokens').
"""

from __future__ import annotations

from typing import Literal

import torch

from hone_worker.train.advantages import Advantages, group_advantages, normalized
from hone_worker.train.objectives.clipped import clip_ratios, clipped, surrogate
from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import (
    TokenLoss,
    mean_of_rollouts,
    needs_whole,
    policy_objective,
)
from hone_worker.train.objectives.policy_options import Clip, Correction, CorrectionOptions, PenaltyOptions
from hone_worker.train.objectives.ratios import rollout_sum, sampler_correction
from hone_worker.train.options import Positive


class Rloo(CorrectionOptions, PenaltyOptions):
    type: Literal["rloo"] = "rloo"
    # TRL's RLOOTrainer has no correction.
    sampler_correction: Correction = "none"
    epsilon_low: Clip = 0.2
    epsilon_high: Positive = 0.2
    normalize_advantages: bool = False


def token_loss(inputs: LossInputs, options: Rloo) -> TokenLoss:
    """The rollout's -min(rho A, clip(rho) A), at each of its tokens: their mean is that of the rollout."""
    low, high, advantages = options.epsilon_low, options.epsilon_high, inputs.advantages
    ratio = torch.exp(rollout_sum(inputs.logprobs - inputs.old.detach(), inputs))
    return TokenLoss(
        -surrogate(ratio, advantages, low, high),
        ratio,
        sampler_correction(inputs, options),
        clipped(ratio, advantages, low, high, "sequence"),
    )


def advantages(rewards: torch.Tensor, groups: torch.Tensor, options: Rloo) -> Advantages:
    found = group_advantages(rewards, groups, "none", baseline="leave_one_out")
    return normalized(found, groups) if options.normalize_advantages else found


OBJECTIVE = policy_objective(
    Rloo,
    token_loss,
    lambda _options: mean_of_rollouts,
    report_of=clip_ratios,
    advantages_of=advantages,
    needs_of=needs_whole,
)
