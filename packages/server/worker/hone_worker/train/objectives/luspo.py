"""LUSPO (arXiv 2602.05261): GSPO's ratio of a rollout, and rollouts count by their length, so that long ones are
not held back.
"""

from __future__ import annotations

from typing import Literal

from hone_worker.train.objectives.clipped import clip_ratios, token_loss
from hone_worker.train.objectives.policy_loss import policy_objective, sum_of_rollouts
from hone_worker.train.objectives.policy_options import ClipOptions


class Luspo(ClipOptions):
    type: Literal["luspo"] = "luspo"
    # TRL's default is "token"; it warns that the paper has "sequence".
    importance_level: Literal["token", "sequence"] = "sequence"


OBJECTIVE = policy_objective(Luspo, token_loss, lambda _options: sum_of_rollouts, report_of=clip_ratios)
