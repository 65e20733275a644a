"""What a stage is given and how it tells what it found."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


@dataclass
class Stage:
    """One stage of the run, in a process of its own."""

    name: str
    shape: str  # tiny, 0.6b or 4b
    out: Path
    until: float  # of time.monotonic(): nothing long is begun after it
    results: Path

    def tell(self, **row: Any) -> None:
        """Adds a row to the results, on disk at once."""
        line = json.dumps({"stage": self.name, "shape": self.shape, **row})
        with self.results.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    @property
    def full(self) -> bool:
        return self.shape != "tiny"


def sync() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(run: Callable[[], Any]) -> float:
    """Seconds, with all that the device was given."""
    sync()
    began = time.perf_counter()
    run()
    sync()
    return time.perf_counter() - began


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
