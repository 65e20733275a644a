"""Imitation: the mean cross-entropy of the trained tokens, whoever wrote them.

The next-token likelihood of GPT (Radford et al. 2018, eq. 1), on answers only, as InstructGPT's supervised step has it
(arXiv 2203.02155, section 3.5). TRL's SFTTrainer has the same mean, over the tokens of the optimizer step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch

from hone_worker.train.advantages import Advantages
from hone_worker.train.objectives.objective import NO_REWARDS, LossInputs, LossOutputs, Objective
from hone_worker.train.objectives.ratios import weighed
from hone_worker.train.options import Options
from hone_worker.train.sums import Metrics, PerRollout


class Sft(Options):
    type: Literal["sft"] = "sft"


def advantages(rewards: torch.Tensor, groups: torch.Tensor, _options: Sft) -> Advantages:
    """Nothing is compared: every example pulls alike."""
    return Advantages(torch.ones_like(rewards), 0, len(groups.unique()))


def loss(inputs: LossInputs, _options: Sft) -> LossOutputs:
    """L = -sum w log pi / sum w, over the trained tokens of the optimizer step."""
    return LossOutputs(
        weighed(-inputs.logprobs, inputs).sum() / inputs.tokens, {"cross_entropy": -inputs.logprobs.detach()}
    )


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    mean = sums["cross_entropy"].mean
    return {**NO_REWARDS, "perplexity": None if mean is None else math.exp(min(mean, 700))}


OBJECTIVE = Objective(Sft, advantages, loss, report, unsampled=True)
