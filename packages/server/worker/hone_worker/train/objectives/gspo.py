"""GSPO (arXiv 2507.18071, eq. 5 and 7): GRPO with one ratio for a rollout, the geometric mean of its tokens'."""

from __future__ import annotations

from typing import Literal

from hone_worker.train.objectives.clipped import clip_ratios, clipped_loss
from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import (
    TokenLoss,
    mean_of_rollouts,
    needs_whole,
    policy_objective,
)
from hone_worker.train.objectives.policy_options import Clip, Clips, PolicyOptions
from hone_worker.train.options import Positive


class Gspo(Clips, PolicyOptions):
    type: Literal["gspo"] = "gspo"
    # The paper's: the mean over a rollout moves little.
    epsilon_low: Clip = 3e-4
    epsilon_high: Positive = 4e-4


def token_loss(inputs: LossInputs, options: Gspo) -> TokenLoss:
    return clipped_loss(inputs, options, "sequence")


OBJECTIVE = policy_objective(
    Gspo, token_loss, lambda _options: mean_of_rollouts, report_of=clip_ratios, needs_of=needs_whole
)
