"""What goes through the model at once, and what one optimizer step trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch

from hone_worker.packing.pack import TreeLayout


class Made(Protocol):
    """What a micro-batch was made of, so that it can be made again in parts."""

    @property
    def leaves(self) -> list[int] | None:
        """What of the plan it trains, in the plan's order; None where it is none of the plan's micro-batches."""

    def halves(self, micro_batch: MicroBatch) -> list[MicroBatch]:
        """The same tokens in two micro-batches, cut between trees (halves.py); itself alone where it cannot be cut."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows of ids and, for each of the N tokens trained in them, where its logits are and what it needs."""

    input_ids: torch.Tensor  # int64 [rows, width], padded on the right; a packed row is [1, N], unpadded
    position_ids: torch.Tensor | None  # int64, of a packed row
    layout: TreeLayout | None  # of a packed row
    row: torch.Tensor  # int64 [N]
    column: (
        torch.Tensor
    )  # int64 [N]: the position before the token, whose logits predict it; for a head its own
    target: torch.Tensor  # int64 [N]
    rollout: torch.Tensor  # int64 [N]
    completion: torch.Tensor  # int64 [N]
    position: torch.Tensor  # int64 [N]: the token's index in the step data's `tokens`
    temperature: torch.Tensor  # float32 [N]
    sampler: torch.Tensor  # float32 [N]
    advantage: torch.Tensor  # float64 [N]
    weight: torch.Tensor | None  # float32 [N], if the step data has weights
    comparable: (
        torch.Tensor
    )  # bool [N]: sampled from the whole distribution of the policy that this step starts from
    tokens: int  # tokens that go through the model, padding not counted
    sequence_tokens: int  # the same, were nothing shared
    longest: int  # tokens of the longest sequence
    made: Made


@dataclass(frozen=True)
class MiniBatch:
    """What one optimizer step trains."""

    micro_batches: list[MicroBatch]
    rollouts: float  # R of the loss
    tokens: float  # those that train; one of weight w counts as w
    mean_tokens: float  # those of all optimizer steps, by the share of rollouts that this one has
    rollout_tokens: torch.Tensor  # float64 [R]: those of each rollout of the step data
    signal: bool  # whether any token has an advantage other than 0

    def with_advantages(self, advantages: torch.Tensor) -> MiniBatch:
        """The same with other advantages of the step data's completions."""
        changed = [replace(m, advantage=advantages[m.completion]) for m in self.micro_batches]
        return replace(
            self, micro_batches=changed, signal=any(bool((m.advantage != 0).any()) for m in changed)
        )
