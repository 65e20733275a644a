"""The spans and blocks of a layout as a processor's flash kernel is called for them, with less for it to compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hone_worker.packing.pack import TreeLayout

#: Tokens from which on what they need not see, or be asked for, is worth a range of its own.
_SHORTEST = 32


@dataclass(frozen=True, eq=False)
class Ranges:
    spans: list[tuple[int, int]]  # as in TreeLayout
    blocks: list[tuple[int, int, int, int]]
    whole: bool = True  # whether every token of the row is in a span

    @classmethod
    def of(cls, layout: TreeLayout) -> Ranges:
        """The kernel computes all of a span and throws half of it away.

        What follows a chain sees a beginning of it, and so does the rest of the chain, which lies right before: both
        are one block, and the span falls in two.
        """
        spans: list[tuple[int, int]] = []
        first = {k_low: (q_low, k_high) for q_low, _, k_low, k_high in reversed(layout.blocks)}
        moved: dict[tuple[int, int], int] = {}
        for low, high in layout.spans:
            q_low, cut = first.get(low, (-1, low))
            if q_low == high and low + _SHORTEST <= cut < high:
                spans += [(low, cut), (cut, high)]
                moved[q_low, low] = cut
            else:
                spans.append((low, high))
        blocks = [
            (moved.get((q_low, k_low), q_low), q_high, k_low, k_high)
            for q_low, q_high, k_low, k_high in layout.blocks
        ]
        return cls(spans, blocks)

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Where spans of one length begin that follow one another, their length, and how many they are.

        They are one call: of answers that end where the limit is, there are many.
        """
        found: list[tuple[int, int, int]] = []
        for low, high in self.spans:
            if found:
                start, length, count = found[-1]
                if (low, high - low) == (start + length * count, length):
                    found[-1] = (start, length, count + 1)
                    continue
            found.append((low, high - low, 1))
        return found

    def asked_by(self, wanted: np.ndarray) -> Ranges:
        """Without the queries before the first of each range that is wanted; `wanted` ascends."""

        def first(low: int, high: int) -> int:
            at = int(np.searchsorted(wanted, low))
            return int(wanted[at]) if at < len(wanted) and wanted[at] < high else high

        spans, own = [], []
        for low, high in self.spans:
            start = first(low, high)
            if start < low + _SHORTEST and start < high:
                start = low
            elif start < high:
                own.append((start, high, low, start))
            if start < high:
                spans.append((start, high))
        blocks = [(first(block[0], block[1]), *block[1:]) for block in self.blocks]
        return Ranges(spans, own + [block for block in blocks if block[0] < block[1]], whole=False)
