"""Keys and values of histories that have no row of the cache, at their exact length, kept as long as memory lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from hone_worker.base.lora import LoraWeights

#: Shared beginnings are found by blocks of so many tokens. A history shorter than one block is not kept.
BLOCK = 16
#: How many histories are looked at if many share a beginning: there they differ by less than a block.
LOOKED_AT = 4


def chain(adapter: LoraWeights | None, ids: Sequence[int]) -> list[int]:
    """A hash for each whole block: of the adapter, and of all ids up to the block's end."""
    at = id(adapter)
    hashes = []
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        at = hash((at, *ids[end - BLOCK : end]))
        hashes.append(at)
    return hashes


@dataclass
class Reuse:
    """Counted over the engine's life."""

    prompt_tokens: int = 0
    #: Of those, tokens whose keys and values were there already.
    reused_tokens: int = 0
    #: Histories that were removed for want of memory.
    evicted: int = 0


@dataclass(eq=False)
class History:
    number: int
    ids: list[int]
    adapter: LoraWeights | None
    #: Of each layer: keys [heads, dim, tokens], values [heads, tokens, dim].
    tensors: list[tuple[Tensor, Tensor]]
    chain: list[int]

    def __len__(self) -> int:
        return len(self.ids)


class Histories:
    """Least recently used first. What lies here is counted in tokens."""

    def __init__(self, reuse: Reuse) -> None:
        self.tokens = 0
        self._reuse = reuse
        self._kept: dict[int, History] = {}
        self._by_block: dict[int, dict[int, History]] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._kept)

    def add(
        self, ids: list[int], adapter: LoraWeights | None, tensors: list[tuple[Tensor, Tensor]]
    ) -> History:
        history = History(next(self._numbers), ids, adapter, tensors, chain(adapter, ids))
        self._kept[history.number] = history
        self.tokens += len(history)
        for block in history.chain:
            self._by_block.setdefault(block, {})[history.number] = history
        return history

    def find(
        self, adapter: LoraWeights | None, ids: list[int], hashes: list[int]
    ) -> tuple[History | None, int]:
        """The history that shares most with the beginning of `ids`, whose chain is `hashes`, and how much."""
        best, best_length = None, 0
        for block in reversed(hashes):
            found = self._by_block.get(block)
            if found is None:
                continue
            for number in list(found)[-LOOKED_AT:]:
                history = found[number]
                # The hash only finds the history. The ids decide whether it is the same.
                if history.adapter is adapter:
                    length = common(ids, history.ids, len(ids))
                    if length > best_length:
                        best, best_length = history, length
            break
        return best, best_length

    def used(self, history: History) -> None:
        if self._kept.pop(history.number, None) is not None:
            self._kept[history.number] = history

    def remove(self, history: History) -> None:
        if self._kept.pop(history.number, None) is None:
            return
        self.tokens -= len(history)
        for block in history.chain:
            found = self._by_block.get(block)
            if found is not None:
                found.pop(history.number, None)
                if not found:
                    del self._by_block[block]

    def shrink(self, limit: int) -> None:
        """Removes the oldest histories until the rest is within the limit."""
        while self.tokens > limit:
            self.remove(next(iter(self._kept.values())))
            self._reuse.evicted += 1

    def forget(self, unwanted: Callable[[LoraWeights | None], bool]) -> None:
        for history in [h for h in self._kept.values() if unwanted(h.adapter)]:
            self.remove(history)


def common(one: list[int], other: list[int], limit: int) -> int:
    """Length of the common beginning, by halving: list comparison is much faster than a loop."""
    high = min(len(one), len(other), limit)
    if high <= 0 or one[0] != other[0]:
        return 0
    if one[:high] == other[:high]:
        return high
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
