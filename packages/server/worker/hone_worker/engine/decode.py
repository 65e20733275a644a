"""Decodes many rows at once. They join and leave between tokens, each with its own adapter and sampling."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.cache import SlotCache, probe_shapes
from hone_worker.engine.choice import Choice, TopLogprobs, Update
from hone_worker.engine.forward import Step
from hone_worker.engine.grammar import mask
from hone_worker.engine.graphs import GraphSteps
from hone_worker.engine.histories import Reuse
from hone_worker.engine.lean import LeanForward, forward_of
from hone_worker.engine.sampling import RowSampling, sample
from hone_worker.engine.slots import Slot, SlotTable
from hone_worker.engine.spans import Span, spans
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault

log = logging.getLogger("hone_worker")

MAX_WAITING = 4096
#: How long decoding may pause for a prefill. If nothing decodes, a prompt is prefilled in one go.
PREFILL_TOKENS = 2048
PREFILL_PAUSE_SECONDS = 0.1
SMALLEST_CHUNK = 32


@dataclass(frozen=True)
class Piece:
    """What a step prefills of one prompt: from `start` to `end`, padded to `width`."""

    slot: Slot
    start: int
    end: int
    width: int


class Decoder:
    """The engine's half of the compute thread. `enqueue` and the counters are for other threads."""

    def __init__(
        self,
        base: Base,
        sink: Callable[[list[Update]], None],
        *,
        max_rows: int = 64,
        cache_bytes: int,
        decode: str | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """`decode` is a way of `ComputePaths`, unless given the base's."""
        self.base = base
        self.sink = sink
        self.on_progress = on_progress
        self.max_rows = max_rows
        self.cache_bytes = cache_bytes
        self.tokens_decoded = 0
        self.tokens_prefilled = 0
        self.reuse = Reuse()
        self._shapes = probe_shapes(base.model, base.device)
        self._forward = forward_of(base)
        self.graphs: GraphSteps | None = None
        if (decode or base.paths.decode) == "graph":
            if isinstance(self._forward, LeanForward):
                self.graphs = GraphSteps(base, self._forward)
            else:
                log.warning("this base is decoded by its own forward, of which no graphs are made")
        self._waiting: deque[Choice] = deque()
        self._lock = threading.Lock()
        self._prefill_rate = 2000.0
        self._changed = True
        self._new_table()

    def _new_table(self) -> None:
        with torch.inference_mode():
            spare = 0 if self.graphs is None else 1
            self.cache = SlotCache(self._shapes, self.base.device, spare=spare)
            self.table = SlotTable(self.cache, self.max_rows, self.cache_bytes, self.reuse)
        self._changed = True

    # For other threads.

    def enqueue(self, choices: Sequence[Choice]) -> None:
        with self._lock:
            if len(self._waiting) + len(choices) > MAX_WAITING:
                message = f"{len(self._waiting)} choices wait already. Send this again in a second."
                raise HoneWorkerError(message, code="overloaded", status=503)
            self._waiting.extend(choices)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self.table.busy()

    # For the compute thread.

    def has_work(self) -> bool:
        return bool(self._waiting) or self.table.busy() > 0

    def step(self) -> None:
        updates: list[Update] = []
        try:
            with torch.inference_mode():
                self._advance(updates)
        except Exception as error:
            log.exception("a decode step failed")
            updates += self._fail_all(error)
        if updates:
            self.sink(updates)

    def forget(self, adapter: LoraWeights) -> None:
        """Drops what is kept of an adapter that was unloaded; requests that use it go on."""
        self.table.forget(adapter)
        self._forward.forget()

    def _advance(self, updates: list[Update]) -> None:
        self._drop_cancelled()
        self._admit()
        pieces = self._pieces() if self.table.prefilling else []
        longest = [piece.start + piece.width for piece in pieces]
        longest += [s.length for s in self.table.slots[: self.table.live]]
        if not longest or not self._ensure(max(longest) + 1):
            return
        for piece in pieces:
            # A layer's keys are written before any token attends, so the prompt's last token goes along.
            if piece.end == len(piece.slot.ids) - 1:
                self._join(self.table.slots.index(piece.slot))
            piece.slot.length = piece.end
        live = self.table.slots[: self.table.live]
        if not self._replay(live, pieces, updates):
            if self._changed and live:
                self._describe_rows()
            logits = self._compute(live, pieces)
            if logits is not None:
                fault("worker.decode")
                self._sample(live, logits, updates)
        self.on_progress()

    def _replay(self, live: list[Slot], pieces: list[Piece], updates: list[Update]) -> bool:
        """The step as a graph, after what there is to prefill. False: it has to go the eager way."""
        if self.graphs is None:
            return False
        if not live or not self.graphs.takes(live):
            self.graphs.forget_rows()
            return False
        if pieces:
            self._compute([], pieces)
            pieces.clear()
        found = self.graphs.run(self.cache, live)
        if found is None:
            return False
        fault("worker.decode")
        for slot in live:
            assert slot.choice is not None
            if not slot.choice.sampling.greedy:
                # The graph had it ahead.
                slot.choice.uniforms.next()
        self._accept(live, [(int(token), logprob, []) for token, logprob in found], {}, updates)
        return True

    def _drop_cancelled(self) -> None:
        for number in range(len(self.table.slots) - 1, -1, -1):
            choice = self.table.slots[number].choice
            if choice is not None and choice.cancelled:
                self._leave(number)
        with self._lock:
            if any(choice.cancelled for choice in self._waiting):
                self._waiting = deque(c for c in self._waiting if not c.cancelled)

    def _admit(self) -> None:
        """Gives slots to what waits, in order. Only a choice that waits for another one's prefill is passed over."""
        if not self._waiting:
            return
        with self._lock:
            queue = list(self._waiting)
        placed: set[int] = set()
        for number, choice in enumerate(queue):
            if self.table.busy() >= self.max_rows:
                break
            if self.table.should_wait(choice):
                continue
            slot = self.table.place(choice)
            if slot is None:
                break
            placed.add(number)
            if self.table.slots[slot].left == 0:
                self._join(slot)
        if placed:
            with self._lock:
                # Others may have joined the queue's end meanwhile.
                rest = [c for i, c in enumerate(queue) if i not in placed]
                late = list(self._waiting)[len(queue) :]
                self._waiting = deque(rest + late)

    def _join(self, number: int) -> None:
        self.table.join(number)
        self._rows_changed()

    def _leave(self, number: int, *, keep: bool = True) -> None:
        self.table.leave(number, keep=keep)
        self._rows_changed()

    def _rows_changed(self) -> None:
        self._changed = True
        if self.graphs is not None:
            self.graphs.forget_rows()

    def _pieces(self) -> list[Piece]:
        """The next chunk of the prompts that wait, a few rows at once."""
        budget = PREFILL_TOKENS
        if self.table.live:
            budget = int(max(SMALLEST_CHUNK, min(budget, self._prefill_rate * PREFILL_PAUSE_SECONDS)))
        slots: list[Slot] = []
        width = 0
        for number in self.table.prefilling:
            slot = self.table.slots[number]
            wider = max(width, min(slot.left, budget))
            if slots and wider * (len(slots) + 1) > budget:
                continue
            slots.append(slot)
            width = wider
        return [Piece(s, s.length, min(s.length + width, len(s.ids) - 1), width) for s in slots]

    def _compute(self, live: list[Slot], pieces: list[Piece]) -> Tensor | None:
        """One forward for a token of every live row and a piece of some prompts."""
        began = time.monotonic()
        device = self.base.device
        width = pieces[0].width if pieces else 0
        ids = torch.zeros(len(pieces), width, dtype=torch.long)
        for row, piece in enumerate(pieces):
            new = piece.slot.ids[piece.start : piece.end]
            ids[row, : len(new)] = torch.tensor(new)
        starts = torch.tensor([p.start for p in pieces], dtype=torch.long).unsqueeze(1)
        lasts = torch.tensor([[s.ids[-1] for s in live], [s.length for s in live]], dtype=torch.long)
        lasts = lasts.to(device)
        logits = self._forward.run(
            Step(
                cache=self.cache,
                live=len(live),
                ids=lasts[0],
                positions=lasts[1],
                adapters=[s.adapter for s in live],
                spans=[
                    Span(start, end, max(s.length for s in live[start:end]) + 1)
                    for start, end in (self._spans if live else ())
                ],
                piece_rows=[self.table.slots.index(p.slot) for p in pieces],
                piece_counts=[p.end - p.start for p in pieces],
                piece_length=max((p.start + width for p in pieces), default=0),
                piece_ids=ids.to(device),
                piece_positions=(starts + torch.arange(width)).to(device),
                piece_adapters=[p.slot.adapter for p in pieces],
            )
        )
        if pieces:
            self.tokens_prefilled += sum(p.end - p.start for p in pieces)
            seconds = max(1e-6, time.monotonic() - began)
            self._prefill_rate += 0.3 * (len(pieces) * width / seconds - self._prefill_rate)
        return logits

    def _sample(self, live: list[Slot], logits: Tensor, updates: list[Update]) -> None:
        """A token for every live row; one transfer back."""
        failed: dict[int, HoneWorkerError] = {}
        if self._bound:
            failed = mask(logits, self._bound, [live[row].choice.grammar for row in self._bound])  # type: ignore[union-attr]
        uniforms = None
        if not self._sampling.all_greedy:
            drawn = [0.0 if s.choice.sampling.greedy else s.choice.uniforms.next() for s in live]  # type: ignore[union-attr]
            uniforms = torch.tensor(drawn, dtype=torch.float64).to(self.base.device)
        self._accept(live, sample(logits, self._sampling, uniforms, self._row_top), failed, updates)

    def _accept(
        self,
        live: list[Slot],
        sampled: list[tuple[int, float, TopLogprobs]],
        failed: dict[int, HoneWorkerError],
        updates: list[Update],
    ) -> None:
        """Gives every live row its token. Rows in `failed`, and those without a finite one, end with an error."""
        ended: list[tuple[int, bool]] = []
        for number, (slot, (token, logprob, top)) in enumerate(zip(live, sampled, strict=True)):
            slot.length += 1
            choice = slot.choice
            assert choice is not None
            if number in failed:
                updates.append(choice.fail(failed[number]))
                ended.append((number, False))
                continue
            if logprob != logprob:
                message = "The model gave no finite probabilities. Check the adapter's weights."
                error = HoneWorkerError(message, code="not_finite", status=500)
                updates.append(choice.fail(error))
                ended.append((number, False))
                continue
            update = choice.accept(token, logprob, top)
            if update is not None:
                updates.append(update)
                if update.finish_reason is not None:
                    ended.append((number, True))
        # From the end, so that the rows still to be removed keep their numbers.
        for number, keep in reversed(ended):
            self._leave(number, keep=keep)
        self.tokens_decoded += len(live)

    def _describe_rows(self) -> None:
        """Tensors that stay the same until a row joins or leaves."""
        live = self.table.slots[: self.table.live]
        choices = [s.choice for s in live if s.choice is not None]
        self._sampling = RowSampling.of([c.sampling for c in choices], self.base.vocab_size, self.base.device)
        self._row_top = max(c.top for c in choices)
        self._spans = [(span.start, span.end) for span in spans([s.length + 1 for s in live])]
        self._bound = [row for row, choice in enumerate(choices) if choice.grammar is not None]
        self._changed = False

    def _ensure(self, length: int) -> bool:
        """Makes room for this length. False: the youngest sequences went back to the queue, so look again."""
        enough = True
        while not self.table.ensure(length):
            enough = False
            running = [(len(s.choice.logprobs), i) for i, s in enumerate(self.table.slots) if s.choice]
            _, youngest = min(running)
            choice = self.table.slots[youngest].choice
            assert choice is not None
            self._leave(youngest, keep=False)
            with self._lock:
                self._waiting.appendleft(choice)
        return enough

    def _fail_all(self, cause: Exception) -> list[Update]:
        """After a failed step no slot can be trusted. All running choices fail, and the cache is made anew."""
        error = HoneWorkerError(
            "The engine failed while it computed this answer. Its log has the cause; send the request again.",
            code="engine_failed",
            status=500,
        )
        error.__cause__ = cause
        failed = [s.choice.fail(error) for s in self.table.slots if s.choice is not None]
        if not failed:
            with self._lock:
                failed = [choice.fail(error) for choice in self._waiting]
                self._waiting.clear()
        self._new_table()
        return failed
