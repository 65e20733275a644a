"""Products of float32 matrices on a processor, by the faster of the two libraries that torch brings.

`torch.mm` is MKL's, which gives other makers' processors kernels half as wide as theirs are: on an AMD with AVX-512 it
multiplies 105 billion times a second and core, and oneDNN, which asks the processor and not its maker, 210 to 240. The
operators are called by name and are not promised to stay; torch is pinned, and tests compare the two.

oneDNN makes code for each shape when it first meets it, which takes as long as some products. So it gets pieces of few
sizes (`in_steps`) and nothing small, and `torch.mm` the rest. Which one it is depends on shapes alone: the same step has
the same bits.

TorchScript (packing/scripted.py) reads these functions too, and the types that they name.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

CPUINFO = Path("/proc/cpuinfo")
#: Rows come in multiples of this, those after the last multiple by themselves.
STEP = 32
#: A call of oneDNN takes 10 microseconds more than one of MKL, as long as so many multiplications.
_LEAST = 2_000_000


if torch.backends.mkldnn.is_available():

    def _onednn(x: Tensor, weight: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return found

    def _onednn_onto(summand: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, summand, weight, None, "add")
        return found

else:  # a build without its operators, whose names nothing may mention

    def _onednn(x: Tensor, weight: Tensor) -> Tensor:
        return torch.mm(x, weight.t())

    def _onednn_onto(summand: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return torch.addmm(summand, x, weight.t())


@cache
def wide_kernels() -> bool:
    """Whether this processor's kernels in oneDNN are wider than MKL's for it."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        maker = re.search(r"^vendor_id\s*:\s*(\S+)", CPUINFO.read_text(), re.M)
    except OSError:  # another system has no such file
        return False
    return maker is not None and maker[1] != "GenuineIntel"


def product(x: Tensor, weight: Tensor, wide: bool) -> Tensor:
    """x [rows, in] times weight [out, in] transposed, as a linear layer has it."""
    if wide and _worth(x.shape[0], weight.numel(), weight):
        return _onednn(x, weight)
    return torch.mm(x, weight.t())


def product_onto(summand: Tensor, x: Tensor, weight: Tensor, wide: bool) -> Tensor:
    """The same, added to what is there, as a new tensor."""
    if wide and _worth(x.shape[0], weight.numel(), weight):
        return _onednn_onto(summand, x, weight)
    return torch.addmm(summand, x, weight.t())


def add_over_rows(total: Tensor, left: Tensor, right: Tensor, wide: bool) -> None:
    """Adds left [rows, a] transposed times right [rows, b] to the total [a, b]."""
    if wide and _worth(left.shape[0], total.numel(), right):
        total.add_(_onednn(left.t(), right.t()))
    else:
        total.addmm_(left.t(), right)


def in_steps(rows: int, most: int) -> Iterator[slice]:
    """Pieces of `most` rows, and what is left in two: a multiple of `STEP`, and the rest."""
    for low, high in steps_of(rows, most):
        yield slice(low, high)


def steps_of(rows: int, most: int, step: int = STEP) -> list[tuple[int, int]]:
    """Beginnings and ends of `in_steps`."""
    most = max(1, most if most < step else most - most % step)
    found: list[tuple[int, int]] = []
    start = 0
    while start < rows:
        left = rows - start
        size = min(most, left if left < step else left - left % step)
        found.append((start, start + size))
        start += size
    return found


def _worth(rows: int, each: int, weight: Tensor, step: int = STEP, least: int = _LEAST) -> bool:
    """`each`: multiplications for a row. A weight with gaps in memory would go through oneDNN's slow reference."""
    plain = weight.is_contiguous() or weight.t().is_contiguous()
    return plain and rows % step == 0 and rows * each >= least
