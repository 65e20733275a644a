"""Batched decoding: sequences join and leave at token boundaries, each with its adapter and its sampling."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from hone_worker.decode_cache import SlotCache, probe_shapes
from hone_worker.decode_choice import Choice, Update
from hone_worker.decode_slots import SlotTable
from hone_worker.errors import HoneWorkerError
from hone_worker.faults import fault
from hone_worker.lora import AdapterStack, LoraWeights
from hone_worker.model import Base
from hone_worker.sampling import RowSampling, sample

log = logging.getLogger("hone_worker")

MAX_WAITING = 4096
#: Prefill in one go when nothing decodes, and at most this long a pause when something does.
PREFILL_TOKENS = 2048
PREFILL_PAUSE_SECONDS = 0.1
SMALLEST_CHUNK = 32
KEPT_STACKS = 4


class Decoder:
    """The engine's half of the compute thread. `enqueue` and the counters are for other threads."""

    def __init__(
        self,
        base: Base,
        sink: Callable[[list[Update]], None],
        *,
        max_rows: int = 64,
        cache_bytes: int,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.base = base
        self.sink = sink
        self.on_progress = on_progress
        self.max_rows = max_rows
        self.cache_bytes = cache_bytes
        self.tokens_decoded = 0
        self.tokens_prefilled = 0
        self._shapes = probe_shapes(base.model, base.device)
        self._body = base.model.get_decoder()  # type: ignore[operator]
        self._waiting: deque[Choice] = deque()
        self._lock = threading.Lock()
        self._stacks: dict[tuple[int, ...], AdapterStack] = {}
        self._prefill_rate = 2000.0
        self._changed = True
        self._new_table()

    def _new_table(self) -> None:
        with torch.inference_mode():
            self.cache = SlotCache(self._shapes, self.base.device)
            self.table = SlotTable(self.cache, self.max_rows, self.cache_bytes)
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
        self.table.forget(lambda slot: slot.adapter is adapter)
        self._stacks.clear()
        self._changed = True

    def _advance(self, updates: list[Update]) -> None:
        self._drop_cancelled()
        self._admit()
        if self.table.prefilling:
            self._prefill()
        if self.table.live:
            self._decode(updates)

    def _drop_cancelled(self) -> None:
        for number in range(len(self.table.slots) - 1, -1, -1):
            choice = self.table.slots[number].choice
            if choice is not None and choice.cancelled:
                self._leave(number)
        with self._lock:
            if any(choice.cancelled for choice in self._waiting):
                self._waiting = deque(c for c in self._waiting if not c.cancelled)

    def _admit(self) -> None:
        """Places what waits, in order; only one that waits for another's prefill is passed by."""
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
        self._changed = True

    def _leave(self, number: int, *, keep: bool = True) -> None:
        self.table.leave(number, keep=keep)
        self._changed = True

    def _prefill(self) -> None:
        """One chunk of the prompts that wait, a few rows at once."""
        budget = PREFILL_TOKENS
        if self.table.live:
            budget = int(max(SMALLEST_CHUNK, min(budget, self._prefill_rate * PREFILL_PAUSE_SECONDS)))
        rows: list[int] = []
        width = 0
        for number in self.table.prefilling:
            wider = max(width, min(self.table.slots[number].left, budget))
            if rows and wider * (len(rows) + 1) > budget:
                continue
            rows.append(number)
            width = wider
        began = time.monotonic()
        slots = [self.table.slots[n] for n in rows]
        ends = [min(s.length + width, len(s.ids) - 1) for s in slots]
        if not self._ensure(max(s.length for s in slots) + width):
            return
        # Making room moves rows; the slots are the same.
        rows = [self.table.slots.index(s) for s in slots]
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.tensor([[s.length] for s in slots]) + torch.arange(width)
        for row, (slot, end) in enumerate(zip(slots, ends, strict=True)):
            ids[row, : end - slot.length] = torch.tensor(slot.ids[slot.length : end])
        device = self.base.device
        positions = positions.to(device)
        length = max(s.length for s in slots) + width
        seen = torch.arange(length, device=device) <= positions.unsqueeze(-1)
        self.cache.aim_prefill(torch.tensor(rows, device=device), positions, length)
        stack, index = self._stack([s.adapter for s in slots])
        gates = None if stack is None else stack.gates(index)
        with self.base.router.gated(stack, gates):
            # The body only: the last token of a prompt goes through a decode step, so no logits here.
            self._body(
                input_ids=ids.to(device),
                attention_mask=self._mask(seen).unsqueeze(1),
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
            )
        done = sum(end - s.length for s, end in zip(slots, ends, strict=True))
        for slot, end in zip(slots, ends, strict=True):
            slot.length = end
        for slot in slots:
            if slot.left == 0:
                self._join(self.table.slots.index(slot))
        self.tokens_prefilled += done
        seconds = max(1e-6, time.monotonic() - began)
        self._prefill_rate += 0.3 * (len(rows) * width / seconds - self._prefill_rate)
        self.on_progress()

    def _decode(self, updates: list[Update]) -> None:
        """One token for every live row: one forward, one transfer back."""
        length = max(s.length for s in self.table.slots[: self.table.live]) + 1
        if not self._ensure(length):
            return
        live = self.table.slots[: self.table.live]
        if self._changed:
            self._describe_rows()
        device = self.base.device
        inputs = torch.tensor([[s.ids[-1] for s in live], [s.length for s in live]]).to(device)
        uniforms = None
        if not self._sampling.all_greedy:
            drawn = [0.0 if s.choice.sampling.greedy else s.choice.uniforms.next() for s in live]  # type: ignore[union-attr]
            uniforms = torch.tensor(drawn, dtype=torch.float64).to(device)
        positions = inputs[1]
        self.cache.aim_decode(len(live), positions, length)
        seen = torch.arange(length, device=device) <= positions.unsqueeze(1)
        with self.base.router.gated(self._row_stack, self._row_gates):
            logits = self.base.model(
                input_ids=inputs[0].unsqueeze(1),
                attention_mask=self._mask(seen)[:, None, None, :],
                position_ids=positions.unsqueeze(1),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        fault("worker.decode")
        sampled = sample(logits.float(), self._sampling, uniforms, self._row_top)
        ended: list[tuple[int, bool]] = []
        for number, (slot, (token, logprob, top)) in enumerate(zip(live, sampled, strict=True)):
            slot.length += 1
            choice = slot.choice
            assert choice is not None
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
        self.on_progress()

    def _describe_rows(self) -> None:
        """Tensors that stay the same until a row joins or leaves."""
        choices = [s.choice for s in self.table.slots[: self.table.live] if s.choice is not None]
        self._sampling = RowSampling.of([c.sampling for c in choices], self.base.vocab_size, self.base.device)
        self._row_top = max(c.top for c in choices)
        self._row_stack, index = self._stack([c.adapter for c in choices])
        self._row_gates = None if self._row_stack is None else self._row_stack.gates(index)
        self._changed = False

    def _stack(self, adapters: Sequence[LoraWeights | None]) -> tuple[AdapterStack | None, torch.Tensor]:
        """The adapters of these rows side by side, in one order whatever the order of the rows."""
        distinct = sorted({id(a): a for a in adapters if a is not None}.items())
        key = tuple(number for number, _ in distinct)
        place = {number: i for i, number in enumerate(key)}
        index = torch.tensor([-1 if a is None else place[id(a)] for a in adapters]).to(self.base.device)
        if not key:
            return None, index
        # A stack holds its adapters, so their ids cannot be given to others while it is kept.
        stack = self._stacks.pop(key, None) or AdapterStack([a for _, a in distinct], self.base.device)
        self._stacks[key] = stack
        while len(self._stacks) > KEPT_STACKS:
            self._stacks.pop(next(iter(self._stacks)))
        return stack, index

    def _mask(self, seen: torch.Tensor) -> torch.Tensor:
        """Additive: a boolean mask would be turned into one in every layer."""
        zeros = torch.zeros(seen.shape, dtype=self.base.dtype, device=seen.device)
        return zeros.masked_fill_(~seen, float("-inf"))

    def _ensure(self, length: int) -> bool:
        """Room for this length. False: for that the youngest sequences went back to the queue; look again."""
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
        """After a failed step no slot can be trusted: all that ran fail, and the cache is made anew."""
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
