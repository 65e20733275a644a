"""CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4): the ratio is cut off and becomes a constant weight of log pi, so
that every token keeps a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import TokenLoss, mean_of_operation, policy_objective
from hone_worker.train.objectives.policy_options import LevelOptions
from hone_worker.train.objectives.ratios import log_ratio, sampler_correction
from hone_worker.train.options import Positive
from hone_worker.train.sums import Metrics, PerRollout


class Cispo(LevelOptions):
    type: Literal["cispo"] = "cispo"
    # Of the ratio itself, not of its distance from 1: ScaleRL's value (arXiv 2510.13786).
    epsilon_high: Positive = 5.0


def token_loss(inputs: LossInputs, options: Cispo) -> TokenLoss:
    """-min(rho, high) A log pi, the first factor without a gradient."""
    level, advantages = options.importance_level, inputs.advantages
    ratio = torch.exp(log_ratio(inputs, level))
    weight = ratio.detach().clamp(max=options.epsilon_high)
    cut = (ratio.detach() > options.epsilon_high) & (advantages > 0)
    return TokenLoss(
        -weight * advantages * inputs.logprobs,
        ratio,
        sampler_correction(inputs, options),
        {f"{level}_cut": cut},
    )


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    if "sequence_cut" in sums:
        return {"cispo_clip_ratio": sums["sequence_cut"].means.mean}
    return {"cispo_clip_ratio": sums["token_cut"].mean}


OBJECTIVE = policy_objective(Cispo, token_loss, lambda _options: mean_of_operation, report_of=report)
