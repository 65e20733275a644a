"""Functions of tensors by TorchScript, which computes them without Python.

Between two operations that Python calls one after another its lock is let go of and taken again. With a part of a step
on each of several threads (train/side_by_side.py) that is thousands of times a step, and each time one may wait for the
other: two threads took longer than one. A scripted function lets go of the lock once. Its operations are the same
ones, and so are its bits, but that an `addmm` without `out` becomes a product and a sum.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch.jit.frontend import FrontendError

log = logging.getLogger("hone_worker")
F = TypeVar("F", bound=Callable[..., object])


def scripted(function: F) -> F:
    """The same function; itself where this torch does not take it."""
    try:
        with warnings.catch_warnings():
            # It is deprecated in favour of compilers, which need one of C++. torch is pinned.
            warnings.simplefilter("ignore", DeprecationWarning)
            return cast(F, torch.jit.script(function))
    except (RuntimeError, AttributeError, TypeError, FrontendError, OSError) as error:
        log.warning("%s goes through Python, which is slower: %s", getattr(function, "__name__", "?"), error)
        return function
