"""Decode steps as CUDA graphs: one for each number of rows and length, in powers of two, made when first needed.

A replay is one launch for some thousand kernels, so that the processor no longer sets the pace. Where there is no
GPU to record on, the same steps run without being recorded: the tests compare them with the eager way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from hone_worker.base.model import Base
from hone_worker.engine.cache import SlotCache
from hone_worker.engine.forward import distinct
from hone_worker.engine.lean import LeanForward
from hone_worker.engine.slots import Slot
from hone_worker.engine.static_step import StaticAdapters, StaticStep, StepShape

log = logging.getLogger("hone_worker")

#: Lengths below this share a graph.
SHORTEST = 128
SMALLEST_RANKS = 8
#: The least recently used goes first. A graph of a model of 36 layers is some ten megabytes.
KEPT_STEPS = 64


class GraphSteps:
    """The decode steps that follow one another without the host: which of them there are, and what they hold."""

    def __init__(self, base: Base, forward: LeanForward) -> None:
        self.base = base
        self.forward = forward
        self.taken = 0
        self._records = base.device.type == "cuda"
        self._steps: dict[StepShape, tuple[StaticStep, torch.cuda.CUDAGraph | None]] = {}
        self._adapters: dict[int, StaticAdapters] = {}
        self._cache: tuple[SlotCache, int] | None = None
        self._loaded: StaticStep | None = None
        #: Of the rows as they are until one joins or leaves: what is asked of their steps, and the longest now.
        self._shape: StepShape | None = None
        self._longest = 0
        self._failed = False
        self._pool = torch.cuda.graph_pool_handle() if self._records else None

    def takes(self, live: Sequence[Slot]) -> bool:
        """Not rows with a grammar, whose next mask waits for the token before; nor those that want likeliest tokens."""
        if self._failed:
            return False
        return self._shape is not None or all(
            s.choice is not None and s.choice.grammar is None and not s.choice.top for s in live
        )

    def forget_rows(self) -> None:
        """Rows joined or left, or a step went the eager way."""
        self._loaded = None
        self._shape = None

    def run(self, cache: SlotCache, live: Sequence[Slot]) -> list[list[float]] | None:
        """Token and log probability of every row. None: this card or driver records no graphs; decode eagerly."""
        if self._cache is None or self._cache[0] is not cache or self._cache[1] != cache.generation:
            # The tensors that every step holds on to are gone.
            self._steps.clear()
            self._cache = (cache, cache.generation)
            self.forget_rows()
        shape = self._next_shape(cache, live)
        found = self._steps.pop(shape, None)
        if found is None:
            try:
                found = self._make(cache, shape)
            except RuntimeError:
                log.exception("no CUDA graph can be recorded here; decoding goes on without")
                self._failed = True
                self._steps.clear()
                return None
        self._steps[shape] = found
        while len(self._steps) > KEPT_STEPS:
            self._steps.pop(next(iter(self._steps)))
        step, graph = found
        if self._loaded is not step or step.left == 0:
            step.load(live)
            self._loaded = step
        if graph is None:
            step.compute()
        else:
            graph.replay()
        self.taken += 1
        return step.read(len(live))

    def _next_shape(self, cache: SlotCache, live: Sequence[Slot]) -> StepShape:
        """Row by row only when rows changed; otherwise every row is one token longer than in the last step."""
        if self._shape is None:
            vocabulary = self.base.vocab_size
            members, places = distinct([slot.adapter for slot in live])
            ranks = sum(adapter.spec.r for adapter in members)
            asked = [slot.choice.sampling for slot in live if slot.choice is not None]
            self._longest = max(slot.length for slot in live)
            self._shape = StepShape(
                rows=min(_power_of_two(len(live)), cache.slots),
                length=0,
                ranks=_power_of_two(ranks, SMALLEST_RANKS) if members else 0,
                gated=len(members) > 1 or (len(members) == 1 and min(places) < 0),
                filtered=any(not s.greedy and (s.top_p < 1 or 0 < s.top_k < vocabulary) for s in asked),
            )
        self._longest += 1
        length = min(_power_of_two(self._longest, SHORTEST), cache.capacity)
        if self._shape.length != length:
            self._shape = replace(self._shape, length=length)
        return self._shape

    def _make(self, cache: SlotCache, shape: StepShape) -> tuple[StaticStep, torch.cuda.CUDAGraph | None]:
        adapters = None
        if shape.ranks:
            adapters = self._adapters.get(shape.ranks)
            if adapters is None:
                adapters = self._adapters[shape.ranks] = StaticAdapters(self.forward, self.base, shape.ranks)
        step = StaticStep(self.base, self.forward, cache, shape, adapters)
        if not self._records:
            return step, None
        # A fresh step's rows all fill up, so what is computed here changes nothing that is kept. Twice before it is
        # recorded: libraries set themselves up, and Triton compiles.
        beside = torch.cuda.Stream(self.base.device)
        beside.wait_stream(torch.cuda.current_stream(self.base.device))
        with torch.cuda.stream(beside):
            for _ in range(2):
                step.compute()
        torch.cuda.current_stream(self.base.device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        recording: AbstractContextManager[None] = torch.cuda.graph(
            graph, pool=self._pool, stream=beside, capture_error_mode="thread_local"
        )
        with recording:
            step.compute()
        return step, graph


def _power_of_two(least: int, smallest: int = 1) -> int:
    size = smallest
    while size < least:
        size *= 2
    return size
