"""Dr. GRPO (arXiv 2503.20783): the clipped surrogate summed over tokens and divided by a constant, so that the
length of an answer does not weigh, and rewards that are not divided by their deviation.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from hone_worker.train.objectives.clipped import clip_ratios, token_loss
from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_loss import Mean, policy_objective
from hone_worker.train.objectives.policy_options import ClipOptions
from hone_worker.train.objectives.ratios import weighed


class DrGrpo(ClipOptions):
    type: Literal["dr_grpo"] = "dr_grpo"
    scale_rewards: Literal["none", "group", "batch"] = "none"
    # TRL's `max_completion_length`.
    normalizer_tokens: Annotated[int, Field(ge=1)] = 1024


def mean(options: DrGrpo) -> Mean:
    def of(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
        return weighed(values, inputs).sum() / (inputs.rollouts * options.normalizer_tokens)

    return of


OBJECTIVE = policy_objective(DrGrpo, token_loss, mean, report_of=clip_ratios)
