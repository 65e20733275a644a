"""DAPO (arXiv 2503.14476, eq. 8): the clipped surrogate, every token of the operation alike. TRL's default."""

from __future__ import annotations

from typing import Literal

from hone_worker.train.objectives.clipped import clip_ratios, token_loss
from hone_worker.train.objectives.policy_loss import mean_of_operation, policy_objective
from hone_worker.train.objectives.policy_options import ClipOptions


class Dapo(ClipOptions):
    type: Literal["dapo"] = "dapo"


OBJECTIVE = policy_objective(Dapo, token_loss, lambda _options: mean_of_operation, report_of=clip_ratios)
