"""A planned micro-batch in parts, on a processor: a thousand tokens keep it as busy as many do, in less memory.

Where it is cut depends on the plan and on how many parts go side by side (side_by_side.py), which the data directory
keeps; never on the memory that is free. So a step that is redone is cut in the same places, and nobody has to be told.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Tokens of a part from which on the next begins, where a cut costs little.
PART_TOKENS = 1024
#: A cut has the second part compute anew what both begin with, which may be this share of the first.
_AGAIN = 1 / 32


def part_tokens(device: torch.device, side_by_side: int = 1) -> int | None:
    """Tokens of a part; None where a micro-batch goes through as it is planned. Smaller where several are in memory."""
    if device.type != "cpu":
        return None
    return PART_TOKENS if side_by_side == 1 else PART_TOKENS // 2


def cuts(units: Sequence[Sequence[Tensor]], most: int) -> list[int]:
    """With which units another part begins. A unit is the ids of sequences that stay together, in the plan's order.

    A part grows past `most` until what the next one shares with it is little beside it.
    """
    found: list[int] = []
    size = 0
    previous: Tensor | None = None
    for at, unit in enumerate(units):
        shared = 0 if previous is None else shared_tokens(previous, unit[0])
        within = sum(
            len(ids) - (0 if place == 0 else shared_tokens(unit[place - 1], ids))
            for place, ids in enumerate(unit)
        )
        if size + within - shared > most and at > 0 and shared <= size * _AGAIN:
            found.append(at)
            size = within
        else:
            size += within - shared
        previous = unit[-1]
    return found


def shared_tokens(one: Tensor, other: Tensor) -> int:
    """With how many tokens both begin."""
    length = min(len(one), len(other))
    differing = (one[:length] != other[:length]).nonzero()
    return int(differing[0]) if len(differing) else length
