"""How a step uses the cores: measured when the worker starts, because no rule fits every machine and base."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from hone_worker.base.model import Base
from hone_worker.base.thread_count import BUDGET_SECONDS, WORTH, measured, median_seconds, most_threads
from hone_worker.packing.attention import NAME
from hone_worker.packing.pack import pack
from hone_worker.packing.tree_attention import obstacle
from hone_worker.train.forward import hidden_states
from hone_worker.train.parts import PART_TOKENS
from hone_worker.train.side_by_side import SideBySide, can_be_side_by_side

log = logging.getLogger("hone_worker")


@dataclass(frozen=True)
class Cores:
    """Both are numbers of cores: of `train` for what goes through alone, of `parts` with a part on each."""

    train: int
    parts: int


def measure_cores(base: Base) -> Cores:
    train = measured(base, rows=4, width=128)
    parts = _measure_parts(base, train)
    log.info("training: %d threads, %d parts side by side", train, parts)
    return Cores(train, parts)


def _measure_parts(base: Base, train: int) -> int:
    """How many forwards at a time take the least for each: one with `train` threads, or several with one thread."""
    most = most_threads()
    if most == 1 or not can_be_side_by_side(base):
        return 1
    width = min(PART_TOKENS // 2, base.max_model_len)
    packed = pack([np.arange(width) % base.vocab_size])
    packable = obstacle(base.model, NAME, base.max_model_len) is None

    def forward() -> None:
        with torch.no_grad():
            hidden_states(
                base,
                None,
                packed.input_ids[None],
                packed.position_ids[None] if packable else None,
                packed.layout if packable else None,
            )

    def together(count: int) -> float:
        side_by_side = SideBySide(count)
        try:
            return median_seconds(lambda: side_by_side.run([forward] * count)) / count
        finally:
            side_by_side.end()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(train)
        start = time.perf_counter()
        forward()
        if time.perf_counter() - start > BUDGET_SECONDS:
            # A base so large keeps all cores busy with one part, and nobody waits for the answer.
            return 1
        alone = median_seconds(forward)
    finally:
        torch.set_num_threads(before)
    return best_count(
        alone, [1 << i for i in range(1, most.bit_length()) if 1 << i < most] + [most], together
    )


def best_count(alone: float, counts: Sequence[int], together: Callable[[int], float]) -> int:
    """The last of these numbers up to which each takes clearly less seconds for a part than the one before it."""
    best, least = 1, alone
    for count in counts:
        seconds = together(count)
        if seconds * WORTH >= least:
            break
        best, least = count, seconds
    return best


def remembered(path: Path | None, device: str, measure: Callable[[], Cores]) -> Cores:
    """The numbers in the file, else the measured ones, which the file keeps from then on. `device`: cpu or cuda.

    Threads share a sum among them, and where a micro-batch is cut hangs on how many parts go side by side. So the last
    bits of a step depend on both. One that is done again must get the same, even after a restart or on a copy of the
    data.
    """
    if path is None:
        return measure()
    try:
        known = json.loads(path.read_text())
        # One that earlier versions wrote has no `parts`. Their steps have other bits than ours in any case.
        found = Cores(known["train"], known["parts"])
        sound = all(isinstance(count, int) and count >= 1 for count in (found.train, found.parts))
        if sound and known.get("device", "cpu") == device:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or one that a crash cut off
    cores = measure()
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps({**asdict(cores), "device": device}) + "\n")
        partial.replace(path)
    except OSError as cause:
        log.warning("the numbers of threads cannot be kept, steps may differ in last bits: %s", cause)
    return cores
