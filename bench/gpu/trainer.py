"""Training steps of the shape's model with random weights: the switches added one by one, then all kinds of work."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from hone_worker.base.adapter_files import write_adapter
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data
from transformers import Qwen3Config

from gpu.flops import PEAK, Sizes, keys_of
from gpu.shapes import Work, adapter_of, config_of, make_base, works
from gpu.stage import Stage, free_memory, peak_bytes, timed
from gpu.steps import micro_batches, step_body

MOST_TOKENS = 16384
Paths = dict[str, str]
#: What a step of training was computed by before there were switches.
BEFORE: Paths = {
    "attention": "masked",
    "lora": "module",
    "layer": "eager",
    "loss_chunk": "256",
    "optimizer": "loop",
}
#: In this order, each on top of those before it that the device can do.
LADDER: dict[str, list[tuple[str, Paths]]] = {
    "cuda": [
        ("+ joined adapters, fused optimizer", {"lora": "joined", "optimizer": "fused"}),
        ("+ varlen", {"attention": "varlen"}),
        ("+ compiled layer", {"layer": "compiled"}),
        ("+ loss chunk", {"loss_chunk": "2048"}),
    ],
    # A processor, where the stages are only tried, has other kernels.
    "cpu": [
        ("+ ranges, fused optimizer", {"attention": "ranges", "optimizer": "fused"}),
        ("+ joined adapters", {"lora": "joined"}),
    ],
}
#: Tried last, in the place of the ladder's own.
INSTEAD: Paths = {"attention": "flex"}


def text_of(paths: Paths) -> str:
    return ",".join(f"{name}={way}" for name, way in paths.items())


def best_paths(stage: Stage) -> str:
    """The top of the ladder, without the rungs that are refused here: what the other stages take as ours."""
    paths = BEFORE
    for _, change in LADDER[stage.device]:
        try:
            ComputePaths.parse(text_of({**paths, **change})).resolved(torch.device(stage.device), stage.dtype)
        except HoneWorkerError:
            continue
        paths = {**paths, **change}
    return text_of(paths)


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    kinds = works(config.vocab_size, "full" if stage.full else "tiny")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # What nothing is switched on for is measured on one more kind of work, for the ratio.
        many, few = (5, 3) if stage.full else (2, 1)
        first = {kinds["S3"]: many, kinds["S1"]: few}
        speeds = _tried(stage, config, first, folder, "before", text_of(BEFORE))
        seconds = {text_of(BEFORE): speeds["S3"]} if "S3" in speeds else {}
        paths = BEFORE
        for variant, change in [*LADDER[stage.device], (f"{INSTEAD['attention']} instead", INSTEAD)]:
            trial = {**paths, **change}
            found = _tried(stage, config, {kinds["S3"]: many}, folder, variant, text_of(trial))
            if "S3" in found:
                seconds[text_of(trial)] = found["S3"]
                paths = trial
        if seconds:
            fastest = min(seconds, key=lambda paths: seconds[paths])
            rest = {kinds[name]: few for name in ("S1", "S2", "S4")}
            _tried(stage, config, rest, folder, "fastest", fastest)


def _tried(
    stage: Stage, config: Qwen3Config, kinds: dict[Work, int], folder: Path, variant: str, paths: str
) -> dict[str, float]:
    """Seconds per unique token by kind of work. What fails or is refused is told of, and the rest goes on."""
    found: dict[str, float] = {}
    base: Base | None = None
    for work, timed_steps in kinds.items():
        where = {"variant": variant, "paths": paths, "work": work.name}
        if stage.left < 0:
            stage.tell(kind="skipped", **where, why="no time was left")
            continue
        try:
            if base is None:
                free_memory()
                base = make_base(config, stage.device, stage.dtype, ComputePaths.parse(paths))
                save_policy(base, folder)
            found[work.name] = measure(stage, base, work, folder, where, timed_steps=timed_steps)
        except HoneWorkerError as error:
            stage.tell(kind="refused", **where, why=error.message)
        except Exception as error:
            stage.tell(kind="failed", **where, why=f"{type(error).__name__}: {error}"[:2000])
    return found


def save_policy(base: Base, folder: Path) -> None:
    if not (folder / "policy").exists():
        (folder / "policy").mkdir()
        write_adapter(folder / "policy", adapter_of(base), base.name)


def measure(
    stage: Stage,
    base: Base,
    work: Work,
    folder: Path,
    where: dict[str, str],
    *,
    timed_steps: int,
    optimizer: str = "adamw",
) -> float:
    """The median of some steps after two that are not counted, in micro-batches of what the trainer finds room for."""
    memory = TrainerMemory(base)
    free_memory()
    body = step_body(work, folder, packing="tree", most_tokens=MOST_TOKENS, optimizer=optimizer)
    sizes_of_parts, told = whole_step(memory, body)
    if stage.full:
        step_seconds(memory, body)
    seconds = [step_seconds(memory, body) for _ in range(timed_steps)]
    batches = micro_batches(work, packing="tree", most_tokens=MOST_TOKENS)
    unique = sum(m.tokens for m in batches)
    trained = sum(len(m.target) for m in batches)
    keys = sum(keys_of(m.layout) for m in batches if m.layout is not None)
    sizes = Sizes.of(base.model.config, 16)
    median = statistics.median(seconds)
    peak = peak_bytes()
    stage.tell(
        kind="trainer",
        **where,
        seconds=median,
        fastest=min(seconds),
        slowest=max(seconds),
        unique_tokens=unique,
        logical_tokens=sum(len(s.ids) for s in work.sequences),
        trained_tokens=trained,
        micro_batches=len(sizes_of_parts),
        largest_micro_batch=max(sizes_of_parts),
        recomputed=told["recomputed_micro_batches"],
        unique_per_second=unique / median,
        logical_per_second=sum(len(s.ids) for s in work.sequences) / median,
        microseconds_per_token=1e6 * median / unique,
        flops=sizes.flops(unique=unique, trained=trained, keys=keys),
        mfu=sizes.mfu(unique=unique, trained=trained, keys=keys, seconds=median, peak=PEAK),
        peak_bytes=peak,
        bytes_per_token=None if peak is None else (peak - base.weight_bytes) / max(sizes_of_parts),
    )
    return median / unique


def whole_step(memory: TrainerMemory, body: bytes) -> tuple[list[int], dict[str, Any]]:
    """A step to its end: the tokens of each micro-batch, and what is told of it. It leaves its files where it has been
    told to."""
    data, step = parse_step_data(body)
    shutil.rmtree(step.staging, ignore_errors=True)
    events = list(train_steps(memory.base, data, step, lambda: False, memory))
    return [e["tokens"] for e in events if e["event"] == "microbatch"], events[-1]["metrics"]


def step_seconds(memory: TrainerMemory, body: bytes) -> float:
    """From the adapter at hand to the updated one: forward, backward, clip and AdamW; no files and no planning.

    What a token takes is measured in the first step, and is in no time that is counted after it.
    """
    data, step = parse_step_data(body)
    shutil.rmtree(step.staging, ignore_errors=True)
    events = train_steps(memory.base, data, step, lambda: False, memory)
    try:
        for event in events:
            if event.get("stage") == "load":
                break

        def until_updated() -> None:
            for event in events:
                if event.get("stage") == "optimizer":
                    return
            raise RuntimeError("the step ended before its optimizer did")

        return timed(until_updated)
    finally:
        # Before anything is written.
        events.close()
