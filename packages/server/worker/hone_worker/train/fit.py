"""Gets micro-batches through the memory that there is: several side by side, as planned, in smaller ones, or with
activations computed again."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

import torch

from hone_worker.base.free_memory import out_of_memory
from hone_worker.base.lora import LoraWeights
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train import parts as sizes
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.micro_batch import MicroBatch

log = logging.getLogger("hone_worker")
T = TypeVar("T")
Event = dict[str, Any]


#: On a GPU a micro-batch of fewer tokens no longer keeps the device busy, so it is recomputed rather than parted: of a
#: base of so many parameters, and of a smaller one, whose kernels end sooner.
LARGE_BASE, LEAST_TOKENS, LEAST_TOKENS_OF_SMALL = 2_000_000_000, 4096, 8192
#: Halves are never of the same size: what a part may have less, so that a whole of twice as many tokens can be parted.
_SLACK = 3 / 4
#: What parts may compute twice, as a share of the whole. To compute every activation again takes a third more time.
_TWICE = 1 / 8
#: On a processor a part of more times PART_TOKENS than this (a tree that shares much) has all of torch's threads, so
#: that it is over in time. It is never beside others: so its bits hang on its tokens and not on the memory.
_LARGE = 4
#: Of the budget, what a part may be planned for: by the time it is computed, a little less may be free.
_ROOM = 0.95


def least_tokens(device: torch.device, parameters: int) -> int | None:
    """Of a part that is made so that no layer has to be computed again.

    None on a processor, where parts are small as it is (parts.py): there what is computed again has the same bits,
    whatever memory was free.
    """
    if device.type != "cuda":
        return None
    return LEAST_TOKENS if parameters >= LARGE_BASE else LEAST_TOKENS_OF_SMALL


class Fit:
    """For the length of one operation."""

    def __init__(self, memory: TrainerMemory) -> None:
        self.memory = memory
        self.split = 0  # micro-batches that were parted in two
        self.recomputed = 0
        self._events: list[Event] = []
        # What has failed once is not tried again: from then on this is the budget.
        self._most: float = float("inf")
        self._side_by_side = True

    def events(self) -> list[Event]:
        """What happened since this was last asked."""
        told, self._events = self._events, []
        return told

    def plan(self, weights: LoraWeights, micro_batches: list[MicroBatch]) -> None:
        """Parts those that do not fit with their activations kept, where that costs less than to compute them again.

        Before anything is computed: so a step that is redone, whose plan has the parts, computes all of it in them.
        """
        base = self.memory.base
        least = least_tokens(base.device, base.parameters)
        if least is None or self.memory.recompute == "on":
            return
        kept = self.memory.kept(weights)
        room = int(self.memory.budget() * _ROOM)
        if kept.of(least, False) > room:
            return
        at = 0
        for whole in list(micro_batches):
            parts = _parted(whole, least, lambda part: kept.of(part.tokens, False) <= room)
            micro_batches[at : at + 1] = parts
            at += len(parts)
            if len(parts) < 2:
                continue
            into = [leaves for part in parts if (leaves := part.made.leaves) is not None]
            self.split += bool(into)
            sizes = ", ".join(str(part.tokens) for part in parts)
            log.info("A micro-batch of %s tokens goes through in parts of %s.", whole.tokens, sizes)
            if into:
                self._events.append({"event": "split", "into": into})

    def trained(
        self,
        weights: LoraWeights,
        micro_batches: list[MicroBatch],
        at: int,
        compute: Callable[[MicroBatch, bool], T],
    ) -> list[T]:
        """`compute` of the micro-batch at this place and of those after it that go beside it, at least of one.

        Or of its first half, whose second then follows it in the list. `compute` is told whether to recompute. It runs
        on several threads, and must have done nothing at all where it raises.
        """
        several = micro_batches[at : at + self._abreast(weights, micro_batches, at)]
        if len(several) > 1 and (found := self._together(several, lambda m: compute(m, False))):
            return found
        forced = False
        while True:
            micro_batch = micro_batches[at]
            recompute = forced or self._recompute(weights, micro_batch)
            if not forced and self._too_large(weights, micro_batch, recompute):
                parts = micro_batch.made.halves(micro_batch)
                if len(parts) > 1:
                    self._part(micro_batches, at, parts, "does not fit into the memory that is free")
                    continue
            done, result = self._alone(micro_batches, at, lambda: compute(micro_batch, recompute))  # noqa: B023
            if done:
                self.recomputed += recompute
                return [result]
            _let_go(self.memory)
            kept = self.memory.kept(weights)
            parts = micro_batch.made.halves(micro_batch)
            if len(parts) > 1:
                self._most = min(
                    self._most,
                    max(kept.of(m.tokens, recompute) for m in parts),
                )
                self._part(micro_batches, at, parts, "found too little memory and begins again")
            elif not recompute and self.memory.can_recompute:
                forced = True
                self._tell(
                    f"A micro-batch of {micro_batch.tokens} tokens found too little memory and cannot be parted. It "
                    "begins again, with activations computed again in its backward."
                )
            else:
                raise too_little(micro_batch)

    def looked_at(
        self, micro_batches: list[MicroBatch], at: int, compute: Callable[[MicroBatch], T]
    ) -> list[T]:
        """The same for a forward without a gradient."""
        several = self._beside(micro_batches, at)
        if len(several) > 1:
            budget = min(self._most, self.memory.budget())
            while len(several) > 1 and sum(map(self.memory.looked_at, several)) > budget:
                several.pop()
        if len(several) > 1 and (found := self._together(several, compute)):
            return found
        while True:
            micro_batch = micro_batches[at]
            done, result = self._alone(micro_batches, at, lambda: compute(micro_batch))  # noqa: B023
            if done:
                return [result]
            _let_go(self.memory)
            parts = micro_batch.made.halves(micro_batch)
            if len(parts) < 2:
                raise too_little(micro_batch)
            self._part(micro_batches, at, parts, "found too little memory and begins again")

    def _beside(self, micro_batches: list[MicroBatch], at: int) -> list[MicroBatch]:
        """Those from this place on that may be computed at the same time, were there room."""
        count = self.memory.side_by_side.count if self._side_by_side else 1
        return list(takewhile(lambda m: not _large(m), micro_batches[at : at + count]))

    def _abreast(self, weights: LoraWeights, micro_batches: list[MicroBatch], at: int) -> int:
        """How many from this place on have room together. Layers are computed again for one at a time."""
        several = self._beside(micro_batches, at)
        if len(several) < 2 or any(self._recompute(weights, m) for m in several):
            return 1
        kept, budget = self.memory.kept(weights), min(self._most, self.memory.budget())
        while sum(kept.of(m.tokens, False) for m in several) > budget:
            several.pop()
        return len(several)

    def _together(self, several: list[MicroBatch], compute: Callable[[MicroBatch], T]) -> list[T]:
        """Results of the first ones, up to one that found too little memory."""
        calls = [partial(_attempt, partial(compute, micro_batch)) for micro_batch in several]
        found: list[T] = []
        for done, result in self.memory.side_by_side.run(calls):
            if not done:
                self._side_by_side = False
                _let_go(self.memory)
                break
            found.append(result)
        return found

    def _alone(self, micro_batches: list[MicroBatch], at: int, compute: Callable[[], T]) -> tuple[bool, Any]:
        """With as many threads of torch's as if others were beside it. A large one has all, and so has the only one of
        its optimizer step.

        So the last bits do not hang on the memory, and a plan with halves in it gives those of the step that made them.
        """
        side_by_side = self.memory.side_by_side
        if side_by_side.count == 1 or len(micro_batches) == 1 or _large(micro_batches[at]):
            return _attempt(compute)
        return side_by_side.run([partial(_attempt, compute)])[0]

    @property
    def _always(self) -> bool:
        return self.memory.recompute == "on"

    def _recompute(self, weights: LoraWeights, micro_batch: MicroBatch) -> bool:
        if self._always or not self.memory.can_recompute:
            return self._always
        return self._too_large(weights, micro_batch, recompute=False)

    def _too_large(self, weights: LoraWeights, micro_batch: MicroBatch, recompute: bool) -> bool:
        wanted = self.memory.kept(weights).of(micro_batch.tokens, recompute)
        return wanted > min(self._most, self.memory.budget())

    def _part(self, micro_batches: list[MicroBatch], at: int, parts: list[MicroBatch], why: str) -> None:
        whole = micro_batches[at]
        micro_batches[at : at + 1] = parts
        sizes = " and ".join(str(part.tokens) for part in parts)
        into = [leaves for part in parts if (leaves := part.made.leaves) is not None]
        self.split += bool(into)
        self._tell(
            f"A micro-batch of {whole.tokens} tokens {why}, in {len(parts)} of {sizes} tokens. A smaller "
            "maxTokensPerMicroBatch plans for less.",
            into=into,
        )

    def _tell(self, message: str, into: list[list[int]] | None = None) -> None:
        log.warning("%s", message)
        event: Event = {"event": "warning", "message": message}
        self._events.append({"event": "split", "message": message, "into": into} if into else event)


def _large(micro_batch: MicroBatch) -> bool:
    # With one thread its bits are the same on any, so it may go beside others.
    return torch.get_num_threads() > 1 and micro_batch.tokens > _LARGE * sizes.PART_TOKENS


def _parted(whole: MicroBatch, least: int, fits: Callable[[MicroBatch], bool]) -> list[MicroBatch]:
    """Parts of at least so many tokens, which fit as far as that goes; of a little fewer only where all of them fit."""
    if fits(whole):
        return [whole]
    halves = whole.made.halves(whole)
    twice = sum(half.tokens for half in halves) - whole.tokens
    if (
        len(halves) < 2
        or (fewest := min(half.tokens for half in halves)) < least * _SLACK
        or twice > whole.tokens * _TWICE
    ):
        return [whole]
    parts = [part for half in halves for part in _parted(half, least, fits)]
    return parts if fewest >= least or all(map(fits, parts)) else [whole]


def _attempt(compute: Callable[[], T]) -> tuple[bool, Any]:
    try:
        return True, compute()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    return False, None


def _let_go(memory: TrainerMemory) -> None:
    """Of what the attempt held. Its frames are gone with its error; what they made cycles of goes here."""
    gc.collect()
    if memory.base.device.type == "cuda":
        torch.cuda.empty_cache()


def too_little(micro_batch: MicroBatch) -> HoneWorkerError:
    return HoneWorkerError(
        f"There is too little memory for a micro-batch of {micro_batch.tokens} tokens, which cannot be made "
        "smaller: its sequences belong together, or it is only one. Limit the sequences (`maxSequenceTokens`), "
        "give the engine less (`serve --engine-share`), or take a smaller base.",
        code="out_of_memory",
        status=500,
    )
