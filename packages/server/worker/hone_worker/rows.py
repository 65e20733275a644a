"""From a plan over leaves to padded micro-batches: one row a leaf, holding its path from the root."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hone_worker.batch import Batch, TrainConfig
from hone_worker.errors import HoneWorkerError


@dataclass(frozen=True)
class MicroBatch:
    """Rows of ids and, for each of the N tokens trained in them, where its logits are and what it needs."""

    input_ids: torch.Tensor  # int64 [rows, width], padded on the right
    row: torch.Tensor  # int64 [N]
    column: torch.Tensor  # int64 [N]: the position before the token, whose logits predict it
    target: torch.Tensor  # int64 [N]
    rollout: torch.Tensor  # int64 [N]
    position: torch.Tensor  # int64 [N]: the token's index in the batch's `tokens`
    temperature: torch.Tensor  # float32 [N]
    sampler: torch.Tensor  # float32 [N]
    advantage: torch.Tensor  # float64 [N]
    comparable: (
        torch.Tensor
    )  # bool [N]: sampled from the whole distribution of the policy that this step starts from
    tokens: int  # tokens that go through the model, padding not counted


@dataclass(frozen=True)
class MiniBatch:
    """What one optimizer step trains."""

    micro_batches: list[MicroBatch]
    rollouts: float  # R of the loss
    signal: bool  # whether any token has an advantage other than 0


def mini_batches(batch: Batch, config: TrainConfig, advantages: torch.Tensor) -> list[MiniBatch]:
    """The plan as tensors. A token that several leaves share is trained in the first leaf that holds it."""
    parent = batch.completion_parent.tolist()
    rollout = batch.completion_rollout.tolist()
    offsets = batch.completion_offsets.tolist()
    trains = trained_completions(batch)
    has_signal = [trains[c] and float(advantages[rollout[c]]) != 0.0 for c in range(batch.completions)]
    if not any(has_signal):
        raise HoneWorkerError(
            "Nothing in the batch can be trained: no sampled token of a trainable rollout has an advantage "
            "other than 0. Send groups whose rewards differ.",
            code="nothing_to_train",
        )
    taken: set[int] = set()
    steps = []
    for planned in config.plan:
        micro_batches: list[MicroBatch] = []
        members: set[int] = set()
        signal = False
        for leaves in planned:
            rows = []
            for leaf in leaves:
                path = _path(parent, leaf)
                new = [c for c in path if trains[c] and c not in taken]
                taken.update(new)
                members.update(rollout[c] for c in new)
                signal = signal or any(has_signal[c] for c in new)
                if new:
                    rows.append((path, set(new)))
            if rows:
                micro_batches.append(_micro_batch(batch, config, advantages, offsets, rows))
        steps.append((micro_batches, len(members), signal))
    for completion, signals in enumerate(has_signal):
        if signals and completion not in taken:
            raise HoneWorkerError(
                f"The plan leaves out completion {completion}, which has tokens to train. List a leaf below it.",
                code="bad_batch",
                param="plan",
            )
    # Rollouts that no step trains (equal rewards, masked) weigh on all steps alike: each step's R is its
    # share of the batch's, so that filters do not change the scale. With one step it is the batch's R.
    listed = sum(count for _, count, _ in steps)
    return [
        MiniBatch(micro_batches, batch.rollouts * count / listed, signal)
        for micro_batches, count, signal in steps
        if micro_batches
    ]


def sampled_tokens(batch: Batch) -> torch.Tensor:
    """Per completion: how many tokens of its suffix the policy sampled."""
    sampled = torch.cat([torch.zeros(1, dtype=torch.int64), batch.sampled.long().cumsum(0)])
    return sampled[batch.completion_offsets].diff()


def trained_completions(batch: Batch) -> list[bool]:
    """Per completion: whether it has sampled tokens that may be trained."""
    allowed = (
        batch.completion_trainable.bool() & batch.rollout_trainable.bool()[batch.completion_rollout.long()]
    )
    return (allowed & (sampled_tokens(batch) > 0)).tolist()


def _path(parent: list[int], leaf: int) -> list[int]:
    path = [leaf]
    while (above := parent[path[-1]]) >= 0:
        path.append(above)
    return path[::-1]


def _micro_batch(
    batch: Batch,
    config: TrainConfig,
    advantages: torch.Tensor,
    offsets: list[int],
    rows: list[tuple[list[int], set[int]]],
) -> MicroBatch:
    inputs, parts = [], []
    for number, (path, new) in enumerate(rows):
        flat = torch.cat([torch.arange(offsets[c], offsets[c + 1]) for c in path])
        owner = torch.cat([torch.full((offsets[c + 1] - offsets[c],), c) for c in path])
        counted = torch.cat([torch.full((offsets[c + 1] - offsets[c],), c in new) for c in path])
        place = (counted & batch.sampled[flat].bool()).nonzero()[:, 0]
        # What follows the last trained token, and that token itself, predict nothing that is trained.
        inputs.append(batch.tokens[flat[: int(place[-1])]].long())
        parts.append((torch.full_like(place, number), place - 1, flat[place], owner[place]))
    row, column, position, owner = (torch.cat(part) for part in zip(*parts, strict=True))
    rollout = batch.completion_rollout[owner].long()
    return MicroBatch(
        # Causal attention never looks to the right, so the padding needs no mask: any id will do.
        input_ids=torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True),
        row=row,
        column=column,
        target=batch.tokens[position].long(),
        rollout=rollout,
        position=position,
        temperature=batch.completion_temperature[owner],
        sampler=batch.logprobs[position],
        advantage=advantages[rollout],
        comparable=(batch.completion_policy[owner] == config.step - 1)
        & (batch.completion_truncated[owner] == 0),
        tokens=sum(len(ids) for ids in inputs),
    )
