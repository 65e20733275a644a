"""From work to step data: what the server would send the trainer, as bytes, in micro-batches of a given size."""

from __future__ import annotations

import json
from collections.abc import Sequence as Listed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hone_worker.packing.pack import pack
from hone_worker.train.micro_batch import MicroBatch
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data
from safetensors.torch import save

from gpu.shapes import Sequence, Work


def plan_of(sequences: Listed[Sequence], packing: str, most_tokens: int) -> list[list[int]]:
    """Micro-batches of at most this many tokens through the model, as the server plans them: in order if packed,
    the longest first if a row each."""
    order = list(range(len(sequences)))
    if packing == "rows":
        order.sort(key=lambda i: -len(sequences[i].ids))
    batches: list[list[int]] = []
    for i in order:
        joined = [*batches[-1], i] if batches else [i]
        if packing == "rows":
            size = max(len(sequences[j].ids) for j in joined) * len(joined)
        else:
            size = pack([np.array(sequences[j].ids) for j in joined]).input_ids.numel()
        if batches and size <= most_tokens:
            batches[-1] = joined
        else:
            batches.append([i])
    return batches


def step_body(
    work: Work,
    folder: Path,
    *,
    packing: str,
    most_tokens: int,
    rank: int = 16,
    optimizer: str = "adamw",
) -> bytes:
    """A completion for each sequence, whose rewards differ within a group. The policy lies in `folder`/policy."""
    flat = [(g, s) for g, members in enumerate(work.groups) for s in members]
    count = len(flat)
    lengths = torch.tensor([len(s.ids) for _, s in flat])
    ones = torch.ones(count, dtype=torch.uint8)
    tensors = {
        "tokens": torch.tensor([t for _, s in flat for t in s.ids], dtype=torch.int32),
        "sampled": torch.tensor([m for _, s in flat for m in s.sampled], dtype=torch.uint8),
        "logprobs": torch.zeros(int(lengths.sum())),
        "completion_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        "completion_parent": torch.full((count,), -1, dtype=torch.int32),
        "completion_rollout": torch.arange(count, dtype=torch.int32),
        "completion_temperature": torch.ones(count),
        "completion_policy": torch.zeros(count, dtype=torch.int32),
        "completion_trainable": ones.clone(),
        "completion_truncated": ones * 0,
        "completion_cut": ones * 0,
        "rollout_reward": torch.arange(count, dtype=torch.float64) % 5,
        "rollout_group": torch.tensor([g for g, _ in flat], dtype=torch.int32),
        "rollout_trainable": ones,
    }
    config: dict[str, Any] = {
        "operation_id": "bench",
        "model": "bench",
        "step": 1,
        "staging": str(folder / "staging"),
        "checkpoint": str(folder / "policy"),
        "lora": {"r": rank, "alpha": 2.0 * rank},
        "optimizer": {"learning_rate": 1e-5, "optimizer": optimizer, "eps": 1e-8},
        "plan": [plan_of(work.sequences, packing, most_tokens)],
        "packing": packing,
        # The logprobs above are no sampler's.
        "max_mismatch": 1e9,
        "seed": 0,
    }
    return save(tensors, metadata={"config": json.dumps(config)})


def micro_batches(work: Work, *, packing: str, most_tokens: int) -> list[MicroBatch]:
    data, config = parse_step_data(
        step_body(work, Path("/nowhere"), packing=packing, most_tokens=most_tokens)
    )
    advantages = torch.ones(data.rollouts, dtype=torch.float64)
    return [m for step in mini_batches(data, config, advantages) for m in step.micro_batches]
