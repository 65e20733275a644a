"""Cuts the live rows into spans of similar length, so that one long row does not slow the others.

The rows of a span are attended over together, each padded to the longest of them: a row of 7,000 tokens among
fifteen of 100 would have all sixteen read 7,000 places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: What the calls for one more span cost, in places that a row reads. Measured with the 1M base on a CPU (`pnpm bench lengths`).
PLACES_A_SPAN = 1024


@dataclass(frozen=True)
class Span:
    """Neighbouring live rows, from `start` to `end`, none of which attends over more than `length` places."""

    start: int
    end: int
    length: int


def spans(lengths: Sequence[int]) -> list[Span]:
    """The cut that reads the fewest places, counting what a span costs.

    While no row joins or leaves, every row grows by one token a step, so the same cut stays good.
    """
    if not lengths:
        return []
    if (max(lengths) - min(lengths)) * len(lengths) <= PLACES_A_SPAN:
        return [Span(0, len(lengths), max(lengths))]
    # cheapest[i]: the cost of the first i rows and where their last span starts.
    cheapest = [(0, 0)]
    for end in range(1, len(lengths) + 1):
        longest = 0
        found: tuple[int, int] | None = None
        for start in range(end - 1, -1, -1):
            longest = max(longest, lengths[start])
            cost = cheapest[start][0] + (end - start) * longest + PLACES_A_SPAN
            if found is None or cost < found[0]:
                found = (cost, start)
        assert found is not None
        cheapest.append(found)
    cut: list[Span] = []
    end = len(lengths)
    while end > 0:
        start = cheapest[end][1]
        cut.append(Span(start, end, max(lengths[start:end])))
        end = start
    return cut[::-1]
