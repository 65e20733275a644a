"""Which kernels a step of training and a step of decoding spend their time in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.train.memory import TrainerMemory
from torch.profiler import ProfilerActivity, profile

from gpu.engine_run import choice_of, decoder_of
from gpu.shapes import adapter_of, config_of, make_base, works
from gpu.stage import Stage, free_memory, sync
from gpu.steps import step_body
from gpu.trainer import best_paths, save_policy, step_seconds

TRACE_BYTES = 16 << 20


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    base = make_base(config, stage.device, stage.dtype, ComputePaths.parse(best_paths(stage)))
    work = works(config.vocab_size, "full" if stage.full else "tiny")["S3"]
    with tempfile.TemporaryDirectory() as name:
        save_policy(base, Path(name))
        # A quarter of the tokens of a step: the kernels are the same, and it fits whatever the memory.
        body = step_body(work, Path(name), packing="tree", most_tokens=4096)
        memory = TrainerMemory(base, recompute="off")
        step_seconds(memory, body)
        _profiled(stage, "training step", lambda: step_seconds(memory, body))
    free_memory()
    decoder, _updates = decoder_of(base, "graph", 8, 1 << 30 if stage.full else 1 << 26)
    policy = adapter_of(base)
    decoder.enqueue([choice_of(base, list(range(1, 40)), policy, 1 << 12, row) for row in range(8)])
    for _ in range(6):
        decoder.step()
    _profiled(stage, "decode step", decoder.step)


def _profiled(stage: Stage, what: str, run: Callable[[], Any]) -> None:
    activities = [ProfilerActivity.CPU]
    if stage.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        run()
        sync()
    on_device = stage.device == "cuda"
    rows = []
    for event in profiled.key_averages():
        spent = event.self_device_time_total if on_device else event.self_cpu_time_total
        rows.append({"name": event.key[:120], "microseconds": spent, "calls": event.count})
    rows.sort(key=lambda row: -row["microseconds"])
    stage.tell(
        kind="kernels",
        of=what,
        microseconds=sum(row["microseconds"] for row in rows),
        launches=sum(row["calls"] for row in rows),
        top=rows[:20],
    )
    trace = stage.out / f"trace-{what.replace(' ', '-')}.json"
    profiled.export_chrome_trace(str(trace))
    if trace.stat().st_size > TRACE_BYTES:
        trace.unlink()
