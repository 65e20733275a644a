"""REINFORCE with the ratio to the sampler in front and no clip: what Tinker's API calls `importance_sampling`.

Tinker sums over tokens; here it is their mean over the optimizer step.
"""

from __future__ import annotations

from typing import Literal

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import TokenLoss, mean_of_tokens, policy_objective
from hone_worker.train.objectives.policy_options import PolicyOptions


class ImportanceSampling(PolicyOptions):
    type: Literal["importance_sampling"] = "importance_sampling"


def token_loss(inputs: LossInputs, _options: ImportanceSampling) -> TokenLoss:
    """-(pi / pi_s) A."""
    ratio = torch.exp(inputs.logprobs - inputs.sampler)
    return TokenLoss(-ratio * inputs.advantages, ratio, None)


OBJECTIVE = policy_objective(ImportanceSampling, token_loss, lambda _options: mean_of_tokens)
