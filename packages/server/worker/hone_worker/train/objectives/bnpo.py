"""BNPO as TRL has it: the clipped surrogate, every token of the optimizer step alike.

TRL divides by the tokens of a device's micro-batch, so its gradient depends on how the batch is cut. Here the
optimizer step is one batch: with one optimizer step an operation it is DAPO.
"""

from __future__ import annotations

from typing import Literal

from hone_worker.train.objectives.clipped import clip_ratios, token_loss
from hone_worker.train.objectives.policy_loss import mean_of_tokens, policy_objective
from hone_worker.train.objectives.policy_options import ClipOptions


class Bnpo(ClipOptions):
    type: Literal["bnpo"] = "bnpo"


OBJECTIVE = policy_objective(Bnpo, token_loss, lambda _options: mean_of_tokens, report_of=clip_ratios)
