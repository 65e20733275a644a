"""Which sequence lies in which slot: admission, reuse of what conversations share, and the memory budget.

A sequence that ended stays in its slot until another needs the slot, and then among the histories, as long as slots
and histories together fit the budget. So what bounds the conversations that are remembered is memory, not rows.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, field

from hone_worker.base.lora import LoraWeights
from hone_worker.engine.cache import SlotCache
from hone_worker.engine.choice import Choice
from hone_worker.engine.histories import BLOCK, Histories, History, Reuse, chain, common

SMALLEST_CAPACITY = 128
SPARE = 64
#: Waiting for another sequence's prefill pays when it saves at least this many tokens.
WORTH_WAITING = 16
#: A sequence that begins with this much of another goes on in its place; with less it takes a copy.
MOVED = 0.9


@dataclass(eq=False)
class Slot:
    """A row of the cache: the first `length` of `ids` are in it. Without a choice it is only kept."""

    ids: list[int] = field(default_factory=list)
    length: int = 0
    adapter: LoraWeights | None = None
    choice: Choice | None = None
    used: float = 0.0

    @property
    def left(self) -> int:
        """Tokens to prefill: all but the last, which the first decode step takes."""
        return len(self.ids) - 1 - self.length if self.choice is not None else 0

    def clear(self) -> None:
        self.ids, self.length, self.adapter, self.choice = [], 0, None, None


class SlotTable:
    """Slots in the order of the cache's rows. The first `live` decode; the rest prefill, are kept or empty."""

    def __init__(self, cache: SlotCache, max_rows: int, budget_bytes: int, reuse: Reuse) -> None:
        self.cache = cache
        self.max_rows = max_rows
        self.budget_tokens = max(1, budget_bytes // cache.bytes_per_token)
        self.slots: list[Slot] = []
        self.live = 0
        self.reuse = reuse
        self.histories = Histories(reuse)
        self._unloaded: weakref.WeakSet[LoraWeights] = weakref.WeakSet()

    @property
    def kept_bytes(self) -> int:
        """Bytes of all slots, used or not, and of the histories."""
        tokens = (len(self.slots) + self.cache.spare) * self.cache.capacity + self.histories.tokens
        return tokens * self.cache.bytes_per_token

    @property
    def prefilling(self) -> list[int]:
        return [i for i in range(self.live, len(self.slots)) if self.slots[i].choice is not None]

    def busy(self) -> int:
        return self.live + len(self.prefilling)

    def should_wait(self, choice: Choice) -> bool:
        """True while another sequence prefills much of what this one needs: n choices, or a group's prompt."""
        _source, ready, coming = self._best_match(choice)
        if coming < ready + WORTH_WAITING:
            return False
        return coming >= self._history(choice)[1] + WORTH_WAITING

    def place(self, choice: Choice) -> int | None:
        """A slot for the choice with what it shares already in it. None: no room now."""
        if self.busy() >= self.max_rows or not self._room_for(len(choice.ids) + 1):
            return None
        source, shared, _coming = self._best_match(choice)
        history, remembered = self._history(choice)
        if history is not None and remembered > shared:
            shared = remembered
            if remembered >= MOVED * len(history):
                # The choice continues in this row, and leaves it longer.
                self.histories.remove(history)
            else:
                self.histories.used(history)
            target = self._idle_slot(None, 0)
            self._remember(target)
            self.cache.load(target, history.tensors, remembered)
        else:
            target = self._idle_slot(source, shared)
            if source != target or shared < MOVED * self.slots[target].length:
                self._remember(target)
            if source is not None and source != target:
                self.cache.copy(source, target, shared)
        slot = self.slots[target]
        slot.ids, slot.length, slot.adapter, slot.choice = choice.ids, shared, choice.adapter, choice
        self.reuse.prompt_tokens += len(choice.ids) - 1
        self.reuse.reused_tokens += shared
        return target

    def _history(self, choice: Choice) -> tuple[History | None, int]:
        """As much of a history as a prompt can begin with: its last token goes through a decode step."""
        if not len(self.histories):
            return None, 0
        if choice.chain is None or len(choice.chain) != len(choice.ids) // BLOCK:
            choice.chain = chain(choice.adapter, choice.ids)
        history, shared = self.histories.find(choice.adapter, choice.ids, choice.chain)
        return history, min(shared, len(choice.ids) - 1)

    def _remember(self, number: int) -> None:
        """What lies in an idle slot goes to the histories, before the slot is used for something else."""
        slot = self.slots[number]
        room = self._history_tokens(len(self.slots), self.cache.capacity)
        if BLOCK <= slot.length <= room and slot.adapter not in self._unloaded:
            self.histories.shrink(room - slot.length)
            tensors = self.cache.copied(number, slot.length)
            self.histories.add(slot.ids[: slot.length], slot.adapter, tensors)
        slot.clear()

    def _history_tokens(self, slots: int, capacity: int) -> int:
        """The bytes that so many slots of this size leave of the budget."""
        return max(0, self.budget_tokens - (slots + self.cache.spare) * capacity)

    def _best_match(self, choice: Choice) -> tuple[int | None, int, int]:
        """The slot that shares most with the choice, how much, and how much will be shared after prefills."""
        limit = len(choice.ids) - 1
        best, best_length, coming = None, 0, 0
        for number, slot in enumerate(self.slots):
            if not slot.ids or slot.adapter is not choice.adapter:
                continue
            shared = common(choice.ids, slot.ids, limit)
            ready = min(shared, slot.length)
            if ready > best_length:
                best, best_length = number, ready
            if slot.choice is not None:
                coming = max(coming, min(shared, len(slot.ids) - 1))
        return best, best_length, coming

    def _idle_slot(self, source: int | None, shared: int) -> int:
        idle = [i for i in range(self.live, len(self.slots)) if self.slots[i].choice is None]
        if source in idle and (shared >= MOVED * self.slots[source].length or len(idle) == 1):
            return source
        others = [i for i in idle if i != source]
        return min(others, key=lambda i: (self.slots[i].length > 0, self.slots[i].used))

    def _room_for(self, length: int) -> bool:
        """Makes sure that an idle slot of this length exists."""
        busy = self.busy()
        if busy < len(self.slots) and length <= self.cache.capacity:
            empty = any(s.choice is None and not s.length for s in self.slots[self.live :])
            if empty or len(self.slots) >= self._most_slots(self.cache.capacity):
                return True
        needed = max([length] + [len(s.ids) + 1 for s in self.slots if s.choice is not None])
        # The present capacity if it leaves room for one more, else what is needed, else barely that.
        for capacity in (max(_rounded(needed), self.cache.capacity), _rounded(needed), needed + SPARE):
            if self._most_slots(capacity) > busy or busy == 0:
                self._resize(min(self._most_slots(capacity), max(2 * len(self.slots), 8)), capacity)
                return True
        return False

    def _most_slots(self, capacity: int) -> int:
        rows = self.budget_tokens // max(1, capacity) - self.cache.spare
        return max(1, min(self.max_rows, rows))

    def ensure(self, length: int) -> bool:
        """Room for sequences of this length among all that run. False: some must go first."""
        if length <= self.cache.capacity:
            return True
        capacity = _rounded(length)
        busy = self.busy()
        if self._most_slots(capacity) < busy:
            capacity = length + SPARE
        if self._most_slots(capacity) < busy:
            return False
        self._resize(max(busy, min(len(self.slots), self._most_slots(capacity))), capacity)
        return True

    def _resize(self, slots: int, capacity: int) -> None:
        """Moves to new tensors: what runs first, then the most recently used of what fits."""
        slots = max(slots, self.busy(), 1)
        running = [i for i, s in enumerate(self.slots) if s.choice is not None]
        kept = [i for i, s in enumerate(self.slots) if s.choice is None and 0 < s.length <= capacity]
        kept.sort(key=lambda i: -self.slots[i].used)
        order = (running + kept)[:slots]
        # The rest goes to the histories, the oldest first. Before there are new tensors they must fit beside them.
        rest = [i for i, s in enumerate(self.slots) if i not in set(order)]
        for i in sorted(rest, key=lambda i: self.slots[i].used):
            self._remember(i)
        self.histories.shrink(self._history_tokens(slots, capacity))
        self.cache.resize(slots, capacity, [(i, self.slots[i].length) for i in order])
        moved = [self.slots[i] for i in order]
        self.slots = moved + [Slot() for _ in range(slots - len(moved))]

    def join(self, number: int) -> None:
        """Moves a slot whose prefill is done to the end of those that decode."""
        self._swap(number, self.live)
        self.live += 1

    def leave(self, number: int, *, keep: bool = True) -> None:
        """Ends a choice. Its keys and values stay for the next turn."""
        slot = self.slots[number]
        slot.choice = None
        slot.ids = slot.ids[: slot.length]
        slot.used = time.monotonic()
        if not keep or slot.adapter in self._unloaded:
            slot.clear()
        if number < self.live:
            self.live -= 1
            self._swap(number, self.live)

    def forget(self, adapter: LoraWeights) -> None:
        """Drops what is kept of an adapter that was unloaded, and will not keep what still runs with it."""
        self._unloaded.add(adapter)
        for slot in self.slots:
            if slot.choice is None and slot.adapter is adapter:
                slot.clear()
        self.histories.forget(lambda kept: kept is adapter)

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        first, second = self.slots[one], self.slots[other]
        if second.length == 0:
            self.cache.copy(one, other, first.length)
        elif first.length == 0:
            self.cache.copy(other, one, second.length)
        else:
            self.cache.swap(one, other, max(first.length, second.length))
        self.slots[one], self.slots[other] = second, first


def _rounded(length: int) -> int:
    """Capacities grow by steps of a half, so that growing stays rare."""
    size = SMALLEST_CAPACITY
    while size < length:
        size += max(SMALLEST_CAPACITY // 2, size // 2)
    return size
