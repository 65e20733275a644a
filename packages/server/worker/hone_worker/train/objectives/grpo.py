"""GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3): the clipped surrogate, each rollout by the mean of its tokens."""

from __future__ import annotations

from typing import Literal

from hone_worker.train.objectives.clipped import clip_ratios, token_loss
from hone_worker.train.objectives.policy_loss import mean_of_rollouts, policy_objective
from hone_worker.train.objectives.policy_options import ClipOptions


class Grpo(ClipOptions):
    type: Literal["grpo"] = "grpo"


OBJECTIVE = policy_objective(Grpo, token_loss, lambda _options: mean_of_rollouts, report_of=clip_ratios)
