"""peft + transformers beside us, in one process and on the same sequences: padded rows, and TRL's logprob path.

TRL's way is its own function over its own arguments: the head at completion tokens only, logits divided by the
temperature, `selective_log_softmax`. Both are given fused AdamW and micro-batches as large as memory allows.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.packing.pack import pack
from transformers import Qwen3Config

from gpu.flops import Sizes
from gpu.shapes import Work, config_of, make_base, random_model, works
from gpu.stage import Stage, free_memory, peak_bytes, timed
from gpu.trainer import best_paths, measure, save_policy

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Logprobs = Callable[[Any, torch.Tensor, torch.Tensor, int], torch.Tensor]


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    all_work = works(config.vocab_size, "full" if stage.full else "tiny")
    chosen = [all_work["S3"], all_work["S1"]]
    ours = _ours(stage, config, chosen)
    model = _peft(config, stage)
    ways: list[tuple[str, Logprobs, bool]] = [
        ("peft + transformers", _plain, False),
        ("peft + transformers, recomputed", _plain, True),
    ]
    try:
        selective_log_softmax = trl_logprobs()

        def trl_way(model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int) -> torch.Tensor:
            logits = model(
                input_ids=ids, attention_mask=mask, logits_to_keep=kept + 1, use_cache=False
            ).logits
            return selective_log_softmax(logits[:, :-1] / 1.0, ids[:, -kept:])

        ways += [("TRL's logprobs, recomputed", trl_way, True)]
    except Exception as error:  # what TRL itself lacks shows in several ways
        stage.tell(kind="refused", way="TRL's logprobs", why=f"{type(error).__name__}: {error}"[:500])
    for work in chosen:
        for way, logprobs, recomputed in ways:
            if stage.left < 0:
                stage.tell(kind="skipped", way=way, work=work.name, why="no time was left")
                continue
            try:
                _measured(stage, model, config, work, way, logprobs, recomputed, ours.get(work.name))
            except Exception as error:
                stage.tell(
                    kind="failed", way=way, work=work.name, why=f"{type(error).__name__}: {error}"[:2000]
                )
            free_memory()


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def trl_logprobs() -> Any:
    """TRL's own `selective_log_softmax`, on CUDA with its Triton kernel.

    Its module imports pandas and datasets too, for what is not used here. They are too large to take along, so where
    one is missing an empty module stands in for it.
    """
    for name in ("pandas", "datasets"):
        try:
            importlib.import_module(name)
        except ImportError:
            for half_loaded in [m for m in sys.modules if m.split(".")[0] == name]:
                del sys.modules[half_loaded]
            stand_in = _StandIn(name)
            stand_in.__spec__ = ModuleSpec(name, None)
            stand_in.__path__ = []
            sys.modules[name] = stand_in
    from trl.trainer.utils import selective_log_softmax

    return selective_log_softmax


def _ours(stage: Stage, config: Qwen3Config, chosen: list[Work]) -> dict[str, float]:
    """Seconds of a step, by kind of work."""
    paths = best_paths(stage)
    found: dict[str, float] = {}
    try:
        base = make_base(config, stage.device, stage.dtype, ComputePaths.parse(paths))
    except Exception as error:
        stage.tell(kind="refused", way="ours", why=f"{type(error).__name__}: {error}")
        return found
    with tempfile.TemporaryDirectory() as name:
        save_policy(base, Path(name))
        for work in chosen:
            where = {"variant": "ours", "paths": paths, "work": work.name}
            found[work.name] = _unique(work) * measure(
                stage, base, work, Path(name), where, timed_steps=3 if stage.full else 1
            )
    del base
    free_memory()
    return found


def _peft(config: Qwen3Config, stage: Stage) -> Any:
    from peft import LoraConfig, get_peft_model

    model = random_model(config, stage.device, stage.dtype, "sdpa")
    return get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS, task_type="CAUSAL_LM")
    )


def _plain(model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: int) -> torch.Tensor:
    """All logits, as somebody writes it who has no library for it."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -kept - 1 : -1]
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[:, -kept:, None])[..., 0]


def _measured(
    stage: Stage,
    model: Any,
    config: Qwen3Config,
    work: Work,
    way: str,
    logprobs: Logprobs,
    recomputed: bool,
    ours: float | None,
) -> None:
    if recomputed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        model.train()
    else:
        model.gradient_checkpointing_disable()
        model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    rows = 16 if stage.full else 4
    while True:
        try:
            free_memory()
            batches = _padded(work, rows, stage.device)
            step = lambda batches=batches: _step(model, optimizer, parameters, batches, logprobs)  # noqa: E731
            timed(step)
            seconds = [timed(step) for _ in range(2)]
            break
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        optimizer.zero_grad(set_to_none=True)
        rows //= 2
    median = statistics.median(seconds)
    logical = sum(len(s.ids) for s in work.sequences)
    # What a packed row would hold, so that both sides are told in the same unit.
    unique = _unique(work)
    stage.tell(
        kind="baseline",
        way=way,
        work=work.name,
        seconds=median,
        rows_at_once=rows,
        unique_per_second=unique / median,
        logical_per_second=logical / median,
        peak_bytes=peak_bytes(),
        ours_times_as_fast=None if ours is None else median / ours,
        linear_flops_per_second=(4.0 * Sizes.of(config, 16).linear) * logical / median,
    )


def _unique(work: Work) -> int:
    return int(pack([np.array(s.ids) for s in work.sequences]).input_ids.numel())


def _padded(work: Work, rows: int, device: str) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(ids, mask, which of the last columns train) of micro-batches, padded on the left as TRL pads prompts."""
    ordered = sorted(work.sequences, key=lambda s: -len(s.ids))
    batches = []
    for at in range(0, len(ordered), rows):
        some = ordered[at : at + rows]
        width = max(len(s.ids) for s in some)
        kept = max(len(s.ids) - s.sampled.index(1) for s in some)
        ids = torch.tensor([[0] * (width - len(s.ids)) + s.ids for s in some], device=device)
        mask = torch.tensor([[0] * (width - len(s.ids)) + [1] * len(s.ids) for s in some], device=device)
        trained = torch.tensor([([0] * kept + s.sampled)[-kept:] for s in some], device=device)
        batches.append((ids, mask, trained.float()))
    return batches


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    logprobs: Logprobs,
) -> None:
    total = sum(float(trained.sum()) for _, _, trained in batches)
    for ids, mask, trained in batches:
        # GRPO's loss of a first step: the ratio is 1, and its gradient is that of the logprobs.
        logprob = logprobs(model, ids, mask, trained.shape[1])
        ratio = torch.exp(logprob - logprob.detach())
        advantage = torch.linspace(-1, 1, len(ids), device=ids.device)[:, None]
        (-(ratio * advantage * trained).sum() / total).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
