"""The same twenty steps of reinforcement learning on the device and on the processor: do both learn the same?

The base of the 2048 quickstart answers prompts of its own vocabulary; an answer's reward is the share of its tokens
that have an even id. Both sides draw the same random numbers, in float32, so that their answers part only where a
probability lies within rounding of a drawn number.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base, load_base
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data
from safetensors.torch import save

from gpu.engine_run import choice_of, decoder_of
from gpu.shapes import TOKENIZER
from gpu.stage import Stage, free_memory
from gpu.trainer import save_policy

GROUPS, MEMBERS, PROMPT, TOKENS = 8, 8, 12, 24
RATE = 3e-3


def run(stage: Stage) -> None:
    steps = 20 if stage.full else 2
    curves = {}
    for device in dict.fromkeys([stage.device, "cpu"]):
        began = time.perf_counter()
        curves[device] = _curve(device, steps)
        stage.tell(kind="curve", device=device, rewards=curves[device], seconds=time.perf_counter() - began)
        free_memory()
    # Where there is no other device, the processor once more.
    other = curves["cpu"] if len(curves) > 1 else _curve("cpu", steps)
    own = curves[stage.device]
    tail = max(1, steps // 5)
    stage.tell(
        kind="learning",
        steps=steps,
        device=stage.device,
        apart=max(abs(a - b) for a, b in zip(own, other, strict=True)),
        gain=statistics.mean(own[-tail:]) - statistics.mean(own[:tail]),
        gain_on_cpu=statistics.mean(other[-tail:]) - statistics.mean(other[:tail]),
    )


def _curve(device: str, steps: int) -> list[float]:
    """The mean reward of each step's answers."""
    base = load_base(str(TOKENIZER), device=device, dtype="float32")
    rewards = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_policy(base, folder)
        policy = folder / "policy"
        memory = TrainerMemory(base)
        for step in range(1, steps + 1):
            answers = _answers(base, policy, step)
            rewards.append(statistics.mean(_reward(ids) for _, ids, _ in answers))
            staging = folder / f"{step}"
            data, config = parse_step_data(_body(answers, policy, staging, step))
            list(train_steps(base, data, config, lambda: False, memory))
            policy = staging
    return rewards


def _answers(base: Base, policy: Path, step: int) -> list[tuple[list[int], list[int], list[float]]]:
    """(prompt, sampled ids, their logprobs), the members of a group one after another."""
    read = read_adapter(policy, base.model)
    weights = LoraWeights(read.spec, read.tensors).to(base.device)
    decoder, updates = decoder_of(base, "eager", GROUPS * MEMBERS, 1 << 28)
    random = torch.Generator().manual_seed(step)
    prompts = [torch.randint(3, base.vocab_size, (PROMPT,), generator=random).tolist() for _ in range(GROUPS)]
    choices = [
        choice_of(base, prompts[row // MEMBERS], weights, TOKENS, step * 1000 + row)
        for row in range(GROUPS * MEMBERS)
    ]
    decoder.enqueue(choices)
    while decoder.has_work():
        decoder.step()
    told = {id(update.choice): update for update in updates}
    found = []
    for choice in choices:
        update = told[id(choice)]
        if update.error is not None:
            raise update.error
        found.append((choice.prompt, update.token_ids, update.logprobs))
    return found


def _reward(ids: list[int]) -> float:
    return sum(token % 2 == 0 for token in ids) / len(ids)


def _body(
    answers: list[tuple[list[int], list[int], list[float]]], policy: Path, staging: Path, step: int
) -> bytes:
    count = len(answers)
    lengths = torch.tensor([len(prompt) + len(ids) for prompt, ids, _ in answers])
    ones = torch.ones(count, dtype=torch.uint8)
    tensors = {
        "tokens": torch.tensor([t for prompt, ids, _ in answers for t in prompt + ids], dtype=torch.int32),
        "sampled": torch.tensor(
            [m for prompt, ids, _ in answers for m in [0] * len(prompt) + [1] * len(ids)], dtype=torch.uint8
        ),
        "logprobs": torch.tensor([x for prompt, _, found in answers for x in [0.0] * len(prompt) + found]),
        "completion_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        "completion_parent": torch.full((count,), -1, dtype=torch.int32),
        "completion_rollout": torch.arange(count, dtype=torch.int32),
        "completion_temperature": torch.ones(count),
        "completion_policy": torch.full((count,), step - 1, dtype=torch.int32),
        "completion_trainable": ones.clone(),
        "completion_truncated": ones * 0,
        "completion_cut": ones * 0,
        "rollout_reward": torch.tensor([_reward(ids) for _, ids, _ in answers], dtype=torch.float64),
        "rollout_group": torch.arange(count, dtype=torch.int32) // MEMBERS,
        "rollout_trainable": ones.clone(),
    }
    config: dict[str, Any] = {
        **{"operation_id": f"bench-{step}", "model": "bench", "step": step, "seed": step},
        **{"staging": str(staging), "checkpoint": str(policy), "lora": {"r": 16, "alpha": 32.0}},
        **{"optimizer": {"learning_rate": RATE}, "plan": [[list(range(count))]], "packing": "tree"},
    }
    return save(tensors, metadata={"config": json.dumps(config)})
