"""From a plan over leaves to micro-batches: all their paths packed into one row of prefix trees, or a padded
row for each path from its root."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from hone_worker.packing.pack import TreeLayout, pack
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.halves import first_half
from hone_worker.train.micro_batch import MicroBatch, MiniBatch
from hone_worker.train.parts import cuts, shared_tokens
from hone_worker.train.step_data import StepData, TrainConfig


def mini_batches(
    data: StepData,
    config: TrainConfig,
    advantages: torch.Tensor,
    *,
    packable: bool = True,
    whole_rollouts: bool = False,
    whole_groups: bool = False,
    rewards: bool = True,
    at_token: bool = False,
    part: int | None = None,
) -> list[MiniBatch]:
    """The plan as tensors. A token that several leaves share is trained in the first leaf that holds it.

    `advantages` are those of completions.

    `packable` is false where the base's attention takes no trees: then what the plan wants packed goes
    through in padded rows, in as many micro-batches as keep the memory that the plan counts on. With
    `whole_rollouts` a rollout's trained tokens stay in one micro-batch, with `whole_groups` a group's, and a plan
    that parts them is refused. Without `rewards` every trained token is a signal. With `at_token` each trained token is
    read where it stands, which a head does; otherwise the place before it is, whose logits predict it. What is packed
    goes through in parts of about `part` tokens (parts.py).
    """
    wholes = data.rollout_group if whole_groups else torch.arange(data.rollouts) if whole_rollouts else None
    build = _padded if config.packing == "rows" else _packed if packable else _padded_in_bounds
    parent = data.completion_parent.tolist()
    rollout = data.completion_rollout.tolist()
    offsets = data.completion_offsets.tolist()
    trains = trained_completions(data)
    has_signal = [trains[c] and (not rewards or float(advantages[c]) != 0.0) for c in range(data.completions)]
    if not any(has_signal):
        raise HoneWorkerError(
            "Nothing in the step data can be trained: no sampled token of a trainable rollout has an advantage "
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
                sequences = [_sequence(data, offsets, path, new, at_token=at_token) for path, new in rows]
                given = _Tokens(data, config, advantages, wholes)
                parted = (
                    [sequences] if part is None or build is not _packed else _parts(sequences, given, part)
                )
                micro_batches.extend(m for part_of in parted for m in build(part_of, given))
        steps.append((micro_batches, len(members), signal))
    for completion, signals in enumerate(has_signal):
        if signals and completion not in taken:
            raise HoneWorkerError(
                f"The plan leaves out completion {completion}, which has tokens to train. List a leaf below it.",
                code="bad_batch",
                param="plan",
            )
    if wholes is not None:
        _require_whole((m for micro_batches, _, _ in steps for m in micro_batches), wholes)
    # Rollouts that no step trains (equal rewards, masked) weigh on all steps alike: each step's R is its
    # share of the step data's, so that filters do not change the scale. With one step it is the step data's R.
    listed = sum(count for _, count, _ in steps)
    none = torch.zeros(data.rollouts, dtype=torch.float64)
    weighed = [sum((_weighed(data, m) for m in micro_batches), none) for micro_batches, _, _ in steps]
    total = sum(weighed, none)
    return [
        MiniBatch(
            micro_batches,
            rollouts=data.rollouts * count / listed,
            tokens=float(tokens.sum()),
            mean_tokens=float(total.sum()) * count / listed,
            rollout_tokens=total,
            signal=signal,
        )
        for (micro_batches, count, signal), tokens in zip(steps, weighed, strict=True)
        if micro_batches
    ]


def _weighed(data: StepData, micro_batch: MicroBatch) -> torch.Tensor:
    """Trained tokens of each rollout, by their weights."""
    weight = micro_batch.weight
    counted = torch.ones(len(micro_batch.rollout)) if weight is None else weight
    zero = torch.zeros(data.rollouts, dtype=torch.float64)
    return zero.index_add_(0, micro_batch.rollout, counted.double())


def _require_whole(micro_batches: Iterable[MicroBatch], wholes: torch.Tensor) -> None:
    """`wholes` says of each rollout what it is a part of: itself, or its group."""
    placed: set[int] = set()
    for micro_batch in micro_batches:
        here = set(wholes[micro_batch.rollout].tolist())
        if parted := here & placed:
            first = int((wholes == min(parted)).nonzero()[0])
            raise HoneWorkerError(
                f"The plan parts the completions of rollout {first} or of its group, and this objective looks at "
                "them as a whole. List all their leaves in one micro-batch.",
                code="bad_batch",
                param="plan",
            )
        placed |= here


def sampled_tokens(data: StepData) -> torch.Tensor:
    """Per completion: how many tokens of its suffix the policy sampled."""
    sampled = torch.cat([torch.zeros(1, dtype=torch.int64), data.sampled.long().cumsum(0)])
    return sampled[data.completion_offsets].diff()


def trained_completions(data: StepData) -> list[bool]:
    """Per completion: whether it has sampled tokens that may be trained."""
    allowed = data.completion_trainable.bool() & data.rollout_trainable.bool()[data.completion_rollout.long()]
    return (allowed & (sampled_tokens(data) > 0)).tolist()


def _path(parent: list[int], leaf: int) -> list[int]:
    path = [leaf]
    while (above := parent[path[-1]]) >= 0:
        path.append(above)
    return path[::-1]


@dataclass(frozen=True, eq=False)
class _Sequence:
    """One leaf's path, and those of its tokens that are trained in it."""

    ids: torch.Tensor  # int64
    before: torch.Tensor  # int64: per trained token, the place that is read: mostly of the one before it
    position: torch.Tensor  # int64: its index in the step data's `tokens`
    owner: torch.Tensor  # int64: its completion
    leaf: int


def _sequence(
    data: StepData, offsets: list[int], path: list[int], new: set[int], *, at_token: bool = False
) -> _Sequence:
    flat = torch.cat([torch.arange(offsets[c], offsets[c + 1]) for c in path])
    owner = torch.cat([torch.full((offsets[c + 1] - offsets[c],), c) for c in path])
    counted = torch.cat([torch.full((offsets[c + 1] - offsets[c],), c in new) for c in path])
    place = (counted & data.sampled[flat].bool()).nonzero()[:, 0]
    read = place if at_token else place - 1
    # What follows the last place that is read changes nothing about what is trained.
    return _Sequence(data.tokens[flat[: int(read[-1]) + 1]].long(), read, flat[place], owner[place], path[-1])


@dataclass(frozen=True, eq=False)
class _Tokens:
    """What the loss needs of trained tokens, wherever they lie."""

    data: StepData
    config: TrainConfig
    advantages: torch.Tensor
    wholes: torch.Tensor | None = None  # per rollout: what it must not be parted from
    planned: bool = True  # false: they are taken from several micro-batches of the plan

    def micro_batch(
        self,
        sequences: list[_Sequence],
        input_ids: torch.Tensor,
        row: torch.Tensor,
        column: torch.Tensor,
        *,
        position_ids: torch.Tensor | None = None,
        layout: TreeLayout | None = None,
    ) -> MicroBatch:
        data = self.data
        position = torch.cat([s.position for s in sequences])
        owner = torch.cat([s.owner for s in sequences])
        rollout = data.completion_rollout[owner].long()
        lengths = [len(s.ids) for s in sequences]
        return MicroBatch(
            input_ids=input_ids,
            position_ids=position_ids,
            layout=layout,
            row=row,
            column=column,
            target=data.tokens[position].long(),
            rollout=rollout,
            completion=owner,
            position=position,
            temperature=data.completion_temperature[owner],
            sampler=data.logprobs[position],
            advantage=self.advantages[owner],
            weight=None if data.completion_weight is None else data.completion_weight[owner],
            comparable=(data.completion_policy[owner] == self.config.step - 1)
            & (data.completion_truncated[owner] == 0),
            tokens=sum(lengths) if layout is None else input_ids.shape[1],
            sequence_tokens=sum(lengths),
            longest=max(lengths),
            made=_Made(sequences, self),
        )


@dataclass(frozen=True, eq=False)
class _Made:
    sequences: list[_Sequence]
    tokens: _Tokens

    @property
    def leaves(self) -> list[int] | None:
        return [sequence.leaf for sequence in self.sequences] if self.tokens.planned else None

    def halves(self, micro_batch: MicroBatch) -> list[MicroBatch]:
        """The first half of the sequences trains what it trained before, and so does the second: the optimizer step
        has the same gradient, but for the order of its sums."""
        units = _units(self.sequences, self.tokens)
        if len(units) < 2:
            return [micro_batch]
        packed = micro_batch.layout is not None
        cut = first_half([[s.ids for s in unit] for unit in units], packed=packed)
        build = _packed if packed else _padded
        # Rewards that lose a penalty change the advantages after the micro-batches are made.
        advantage = torch.zeros(len(self.tokens.data.tokens), dtype=micro_batch.advantage.dtype)
        advantage[micro_batch.position] = micro_batch.advantage
        parts = ([s for unit in side for s in unit] for side in (units[:cut], units[cut:]))
        made = [half for part in parts for half in build(part, self.tokens)]
        return [replace(half, advantage=advantage[half.position]) for half in made]


def _units(sequences: list[_Sequence], tokens: _Tokens) -> list[list[_Sequence]]:
    """Sequences that must not be parted, in the order of the first of each."""
    if tokens.wholes is None:
        return [[sequence] for sequence in sequences]
    units: dict[int, list[_Sequence]] = {}
    for sequence in sequences:
        owner = int(tokens.wholes[tokens.data.completion_rollout[sequence.owner[0]].long()])
        units.setdefault(owner, []).append(sequence)
    return list(units.values())


def _parts(sequences: list[_Sequence], tokens: _Tokens, most: int) -> list[list[_Sequence]]:
    units = _units(sequences, tokens)
    bounds = [0, *cuts([[s.ids for s in unit] for unit in units], most), len(units)]
    return [[s for unit in units[low:high] for s in unit] for low, high in pairwise(bounds)]


def _packed(sequences: list[_Sequence], tokens: _Tokens) -> list[MicroBatch]:
    row = pack([s.ids.numpy() for s in sequences])
    column = torch.cat([place[s.before] for s, place in zip(sequences, row.places, strict=True)])
    return [
        tokens.micro_batch(
            sequences,
            row.input_ids[None],
            torch.zeros_like(column),
            column,
            position_ids=row.position_ids[None],
            layout=row.layout,
        )
    ]


def _padded(sequences: list[_Sequence], tokens: _Tokens) -> list[MicroBatch]:
    row = torch.cat([torch.full_like(s.before, number) for number, s in enumerate(sequences)])
    # Causal attention never looks to the right, so the padding needs no mask: any id will do.
    inputs = torch.nn.utils.rnn.pad_sequence([s.ids for s in sequences], batch_first=True)
    return [tokens.micro_batch(sequences, inputs, row, torch.cat([s.before for s in sequences]))]


def _padded_in_bounds(sequences: list[_Sequence], tokens: _Tokens) -> list[MicroBatch]:
    """Padded rows, no more of them at once than fill what the packed row would have held; wholes together."""
    units = _units(sequences, tokens)
    bound = pack([s.ids.numpy() for s in sequences]).input_ids.numel()
    parts: list[list[_Sequence]] = []
    width = 0
    for unit in units:
        longest = max(len(sequence.ids) for sequence in unit)
        width = max(width, longest)
        if parts and (len(parts[-1]) + len(unit)) * width <= bound:
            parts[-1].extend(unit)
        else:
            parts.append(list(unit))
            width = longest
    return [micro_batch for part in parts for micro_batch in _padded(part, tokens)]


#: The sample of `sampled_micro_batch`: this part of the tokens that a step puts through the model, and no more than
#: so many. A forward without a gradient costs about half of what training a token costs.
SAMPLE_SHARE, SAMPLE_TOKENS = 1 / 16, 4096
#: Of the first answer at least so many tokens, where the prompt alone is longer than the sample may be.
_LEAST = 16


def sampled_micro_batch(data: StepData, config: TrainConfig, tokens: int, *, packable: bool) -> MicroBatch:
    """Some of the step's sequences, of which `tokens` tokens go through the model: the same for the same plan.

    They are neighbours in the plan, from a place that the seed says, so that they share their beginnings. The first is
    cut where it alone is too long.
    """
    parent, offsets = data.completion_parent.tolist(), data.completion_offsets.tolist()
    trains = trained_completions(data)
    leaves = [leaf for step in config.plan for micro_batch in step for leaf in micro_batch]
    first = int(torch.randint(len(leaves), (1,), generator=torch.Generator().manual_seed(config.seed)))
    packed = packable and config.packing == "tree"
    most = left = int(min(SAMPLE_TOKENS, tokens * SAMPLE_SHARE))
    width = 0
    taken: set[int] = set()
    sequences: list[_Sequence] = []
    for leaf in leaves[first:] + leaves[:first]:
        path = _path(parent, leaf)
        new = {c for c in path if trains[c] and c not in taken}
        if not new:
            continue
        sequence = _sequence(data, offsets, path, new)
        added = len(sequence.ids) - (
            shared_tokens(sequences[-1].ids, sequence.ids) if packed and sequences else 0
        )
        if added > left and sequences:
            break
        if added > left:
            sequence = _cut(sequence, max(left, int(sequence.before[0]) + _LEAST))
        # Padding goes through the model too.
        width = max(width, len(sequence.ids))
        if not packed and sequences and (len(sequences) + 1) * width > max(most, len(sequences[0].ids)):
            break
        taken |= new
        sequences.append(sequence)
        left -= added
    none = torch.zeros(data.completions, dtype=torch.float64)
    (sample,) = (_packed if packed else _padded)(sequences, _Tokens(data, config, none, planned=False))
    return sample


def _cut(sequence: _Sequence, length: int) -> _Sequence:
    """Its first `length` tokens, and of what is trained only what they predict."""
    kept = sequence.before < length
    before = sequence.before[kept]
    ids = sequence.ids[: int(before[-1]) + 1]
    return _Sequence(ids, before, sequence.position[kept], sequence.owner[kept], sequence.leaf)
