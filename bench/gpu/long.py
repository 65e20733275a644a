"""A row of 32,768 tokens, and a step whose memory ends in the middle: halved, done again, with the same gradient."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.base.model import Base
from hone_worker.train.checkpoint import OPTIMIZER_FILE
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data
from safetensors.torch import load_file

from gpu.shapes import Sequence, Work, config_of, make_base, works
from gpu.stage import Stage, free_memory, peak_bytes
from gpu.steps import step_body
from gpu.trainer import MOST_TOKENS, best_paths, save_policy, step_seconds, whole_step

#: Of what a step takes above the base, how much is left to it.
LEFT = 0.6


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    base = make_base(config, stage.device, stage.dtype, ComputePaths.parse(best_paths(stage)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_policy(base, folder)
        for each in (_long_row, _out_of_memory):
            try:
                each(stage, base, folder)
            except Exception as error:
                stage.tell(kind="failed", what=each.__name__, why=f"{type(error).__name__}: {error}"[:2000])


def _long_row(stage: Stage, base: Base, folder: Path) -> None:
    random = torch.Generator().manual_seed(0)
    tokens = 32_768 if stage.full else 192
    # A group of one has no advantage, so a short second sequence is beside the long one.
    rows = [torch.randint(base.vocab_size, (count,), generator=random).tolist() for count in (tokens, 8)]
    work = Work("long", [[Sequence(ids, [0, *[1] * (len(ids) - 1)]) for ids in rows]])
    memory = TrainerMemory(base)
    free_memory()
    body = step_body(work, folder, packing="tree", most_tokens=2 * tokens)
    parts, told = whole_step(memory, body)
    seconds = step_seconds(memory, body)
    stage.tell(
        kind="long",
        tokens=tokens,
        seconds=seconds,
        unique_per_second=sum(parts) / seconds,
        recomputed=told["recomputed_micro_batches"],
        peak_bytes=peak_bytes(),
    )


def _out_of_memory(stage: Stage, base: Base, folder: Path) -> None:
    """Three times the same step: undisturbed, with less memory than it takes, and by the plan that the second left."""
    work = works(base.model.config.vocab_size, "full" if stage.full else "tiny")["S3"]
    body = step_body(work, folder, packing="tree", most_tokens=MOST_TOKENS)
    memory = TrainerMemory(base)
    free_memory()
    held = torch.cuda.memory_allocated() if stage.device == "cuda" else 0
    whole, planned = _gradient(memory, body, [])
    peak = peak_bytes()
    free_memory()
    with _less_memory(base, held, peak):
        halved, splits = _gradient(memory, body, planned)
    redone, _ = _gradient(memory, body, [*planned, *splits])
    stage.tell(
        kind="out_of_memory",
        forced="by the allocator" if stage.device == "cuda" else "by raising its error",
        splits=len(splits),
        gradient_apart=_apart(halved, whole),
        redone_apart=_apart(redone, halved),
    )


def _gradient(
    memory: TrainerMemory, body: bytes, splits: list[dict[str, Any]]
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Of a step whose plan has these splits, and the splits that it told of itself."""
    data, config = parse_step_data(body)
    plan = json.loads(json.dumps(config.plan))
    for split in splits:
        for step in plan:
            for at, leaves in enumerate(step):
                if split["into"][0][0] in leaves:
                    gone = {leaf for part in split["into"] for leaf in part}
                    rest = [leaf for leaf in leaves if leaf not in gone]
                    step[at : at + 1] = [*split["into"], *([rest] if rest else [])]
                    break
    shutil.rmtree(config.staging, ignore_errors=True)
    config = config.model_copy(update={"plan": plan})
    events = list(train_steps(memory.base, data, config, lambda: False, memory))
    moments = load_file(Path(config.staging) / OPTIMIZER_FILE)
    gradient = {name: value.double() for name, value in moments.items() if name.endswith(".exp_avg")}
    return gradient, [event for event in events if event["event"] == "split"]


@contextmanager
def _less_memory(base: Base, held: int, peak: int | None) -> Iterator[None]:
    """On a GPU the allocator may take so much; what is free, as the driver tells it, stays as it was, so that the
    trainer is surprised. On a processor a backward fails once."""
    if base.device.type == "cuda":
        assert peak is not None
        total = torch.cuda.get_device_properties(base.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (held + LEFT * (peak - held)) / total))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    struck: list[int] = []

    def strike(_module: object, _inputs: object, outputs: tuple[torch.Tensor, ...]) -> None:
        if not struck:
            struck.append(1)
            raise torch.OutOfMemoryError("injected")

    hook = decoder_layers(base.model)[0].register_full_backward_hook(strike)
    try:
        yield
    finally:
        hook.remove()


def _apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    difference = torch.cat([(one[name] - value).flatten() for name, value in other.items()])
    return float(difference.norm() / torch.cat([value.flatten() for value in other.values()]).norm())
