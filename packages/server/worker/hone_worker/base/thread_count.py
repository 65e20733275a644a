"""How many threads a kind of work is given: measured when the worker starts, because no rule fits every machine.

A second thread helps a large matmul on an idle core, does nothing for a small one, and costs many times what
it saves where the core belongs to somebody else. So it must show a clear gain in the median of some runs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import torch

from hone_worker.base.model import Base

log = logging.getLogger("hone_worker")

#: What more threads must gain: less is not worth the core, which renderer and server can use.
WORTH = 1.25
RUNS = 5
BUDGET_SECONDS = 2.0


def most_threads() -> int:
    """The cores that this process may use, or fewer where the environment says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(wanted))) if wanted.isdigit() else cores


def fastest(run: Callable[[], object], most: int, set_threads: Callable[[int], None]) -> int:
    """The smallest number of 1, 2, 4, … `most` threads that no larger one beats clearly."""
    best, best_seconds = 1, float("inf")
    counts = [1 << i for i in range(most.bit_length()) if 1 << i < most] + [most]
    for count in counts:
        set_threads(count)
        median = median_seconds(run)
        if median * WORTH < best_seconds or count == 1:
            best, best_seconds = count, median
        elif median > 2 * best_seconds:
            break
    return best


def median_seconds(run: Callable[[], object]) -> float:
    """Of a few runs behind one that does not count, as many as the budget of time lets through."""
    run()
    seconds: list[float] = []
    began = time.monotonic()
    while len(seconds) < RUNS and (not seconds or time.monotonic() - began < BUDGET_SECONDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def measured(base: Base, rows: int, width: int) -> int:
    """The count for forwards of so many rows and tokens. One on a GPU, where the processor only starts kernels."""
    most = most_threads()
    if most == 1 or base.device.type != "cpu":
        return 1
    ids = torch.ones(rows, min(width, base.max_model_len), dtype=torch.long)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            count = fastest(lambda: base.model(ids, use_cache=False), most, torch.set_num_threads)
    finally:
        torch.set_num_threads(before)
    log.info("%d threads for %d rows of %d tokens", count, rows, width)
    return count
