"""A base in 4 bits and moments in 8 beside all of their bits: the same steps, seconds and memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError

from gpu.engine_run import tokens_per_second
from gpu.shapes import adapter_of, config_of, make_base, works
from gpu.stage import Stage, free_memory
from gpu.trainer import best_paths, measure, save_policy

VARIANTS = [
    ("all bits", False, "adamw"),
    ("8-bit moments", False, "adamw_8bit"),
    ("4-bit base", True, "adamw"),
    ("4-bit base, 8-bit moments", True, "adamw_8bit"),
]


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    work = works(config.vocab_size, "full" if stage.full else "tiny")["S3"]
    paths = best_paths(stage)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained: dict[str, float] = {}
        decoded: dict[str, float] = {}
        for variant, packed, optimizer in VARIANTS:
            where = {"variant": variant, "paths": paths, "work": work.name}
            if stage.left < 0:
                stage.tell(kind="skipped", **where, why="no time was left")
                continue
            try:
                free_memory()
                base = make_base(config, stage.device, stage.dtype, ComputePaths.parse(paths), packed=packed)
                stage.tell(kind="weights", **where, bytes=base.weight_bytes)
                save_policy(base, folder)
                steps = 3 if stage.full else 1
                trained[variant] = measure(
                    stage, base, work, folder, where, timed_steps=steps, optimizer=optimizer
                )
                if optimizer == "adamw":
                    decoded[variant] = _one_row(stage, base)
                    stage.tell(kind="decode", variant=variant, rows=1, tokens_per_second=decoded[variant])
                del base
            except HoneWorkerError as error:
                # Such as of an environment without bitsandbytes.
                stage.tell(kind="refused", **where, why=error.message)
            except Exception as error:
                stage.tell(kind="failed", **where, why=f"{type(error).__name__}: {error}"[:2000])
        plain, packed_name = "all bits", "4-bit base"
        if {plain, packed_name} <= trained.keys() & decoded.keys():
            stage.tell(
                kind="bits",
                training=trained[plain] / trained[packed_name],
                decoding=decoded[packed_name] / decoded[plain],
            )


def _one_row(stage: Stage, base: Base) -> float:
    """Tokens a second of one row, each step of which makes every matrix once."""
    context, steps = (512, 64) if stage.full else (24, 6)
    cache = (4 << 30) if stage.full else (1 << 26)
    rate, _filled, _graphs = tokens_per_second(
        base,
        adapter_of(base).to(base.device),
        rows=1,
        context=context,
        steps=steps,
        decode="graph" if stage.device == "cuda" else "eager",
        cache_bytes=cache,
    )
    return rate
