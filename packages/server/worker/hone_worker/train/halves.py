"""Where a micro-batch is parted in two: between its trees, so that what sequences share is not computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from torch import Tensor

from hone_worker.train.parts import shared_tokens

#: A token that both halves compute weighs as much as so many by which one is larger than the other.
_TWICE = 8


def first_half(units: Sequence[Sequence[Tensor]], *, packed: bool) -> int:
    """How many of the units come first: at least one, and not all of them.

    A unit is the ids of sequences that stay together. Sequences that begin alike are neighbours, as the plan has them.
    In padded rows nothing is shared.
    """
    shared = [0] * len(units)
    added = []
    for at, unit in enumerate(units):
        if packed and at > 0:
            shared[at] = shared_tokens(units[at - 1][-1], unit[0])
        within = [shared_tokens(one, other) for one, other in pairwise(unit) if packed]
        added.append(sum(len(ids) for ids in unit) - sum(within) - shared[at])
    before = [0, *accumulate(added)]

    def cost(cut: int) -> int:
        larger = max(before[cut], before[-1] - before[cut] + shared[cut])
        return larger + _TWICE * shared[cut]

    return min(range(1, len(units)), key=cost)
