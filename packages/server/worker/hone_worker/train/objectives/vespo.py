"""VESPO (arXiv 2602.10693): a smooth weight of the whole rollout's ratio, which holds both ends back.

The order of clamps is that of TRL's `get_gamma_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import (
    TokenLoss,
    mean_of_operation,
    needs_whole,
    policy_objective,
)
from hone_worker.train.objectives.policy_options import CorrectionOptions, PolicyOptions
from hone_worker.train.objectives.ratios import rollout_sum, sampler_correction
from hone_worker.train.options import Positive
from hone_worker.train.sums import Metrics, PerRollout

_LOWEST, _HIGHEST = math.log(1e-8), 20.0


class Vespo(CorrectionOptions, PolicyOptions):
    type: Literal["vespo"] = "vespo"
    # Part of the rollout's ratio here, and TRL takes no other.
    sampler_correction: Literal["none", "token_truncate", "token_mask"] = "token_truncate"
    k_positive: Positive = 2.0
    lambda_positive: Positive = 3.0
    k_negative: Positive = 3.0
    lambda_negative: Positive = 2.0


def token_loss(inputs: LossInputs, options: Vespo) -> TokenLoss:
    """-phi A log pi; phi = e^lambda w^k e^(-lambda w), w the product of pi / pi_s over the rollout, no gradient."""
    gap = (inputs.logprobs - inputs.old).detach()
    whole = gap.clamp(-20.0, 20.0)
    correction = sampler_correction(inputs, options)
    if correction is not None:
        whole = whole + correction.log().clamp(_LOWEST, _HIGHEST)
    log_w = rollout_sum(whole, inputs).clamp(_LOWEST, _HIGHEST)
    good = inputs.advantages >= 0
    k = torch.where(good, options.k_positive, options.k_negative)
    lamda = torch.where(good, options.lambda_positive, options.lambda_negative).clamp(min=1e-4)
    phi = torch.exp(lamda + k * log_w - lamda * log_w.exp()).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    ratio = torch.exp(inputs.logprobs - inputs.old.detach())
    return TokenLoss(-phi * inputs.advantages * inputs.logprobs, ratio, None, {"phi": phi})


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    return {"vespo/phi_seq_mean": sums["phi"].means.mean}


OBJECTIVE = policy_objective(
    Vespo, token_loss, lambda _options: mean_of_operation, report_of=report, needs_of=needs_whole
)
