"""SAPO (arXiv 2511.20347): the clip made smooth, a sigmoid gate around ratio 1 whose slope there is A."""

from __future__ import annotations

from typing import Literal

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import TokenLoss, mean_of_rollouts, policy_objective
from hone_worker.train.objectives.policy_options import LevelOptions
from hone_worker.train.objectives.ratios import log_ratio, sampler_correction
from hone_worker.train.options import Positive


class Sapo(LevelOptions):
    type: Literal["sapo"] = "sapo"
    temperature_positive: Positive = 1.0
    temperature_negative: Positive = 1.05


def token_loss(inputs: LossInputs, options: Sapo) -> TokenLoss:
    """-A sigma(tau (rho - 1)) 4 / tau, tau by the sign of A."""
    ratio = torch.exp(log_ratio(inputs, options.importance_level))
    tau = torch.where(inputs.advantages > 0, options.temperature_positive, options.temperature_negative)
    gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    return TokenLoss(-gate * inputs.advantages, ratio, sampler_correction(inputs, options))


OBJECTIVE = policy_objective(Sapo, token_loss, lambda _options: mean_of_rollouts)
