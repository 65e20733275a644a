"""Which sequences go through a model beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

Row = TypeVar("Row")


def beside(sequences: Sequence[Row], device: torch.device) -> Iterable[Sequence[Row]]:
    """On a CPU each by itself, on an accelerator all.

    A product of matrices rounds a row by how many stand beside it, so a score would depend on what else is scored at
    that moment: a stage that was cut off and goes on would write other last digits. A CPU loses little by it, and
    nothing where conversations are long, because it computes no padding.
    """
    return [sequences] if device.type != "cpu" else ([row] for row in sequences)
