"""What the parts of a training operation hand to one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hone_worker.train.micro_batch import MicroBatch
from hone_worker.train.objectives.objective import LossOutputs


@dataclass(frozen=True)
class HighEntropy:
    mask: torch.Tensor  # bool, of the step data's `tokens`
    tokens: float  # how many it holds, by their weights


@dataclass(frozen=True, eq=False)
class Computed:
    """What a micro-batch leaves to be measured when its optimizer step is computed.

    On a GPU each number that is read waits for all that was launched before it, and launches nothing meanwhile.
    """

    micro_batch: MicroBatch
    outputs: LossOutputs
    logprob: torch.Tensor
    entropy: torch.Tensor
    reference: torch.Tensor | None
