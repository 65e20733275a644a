"""What packing saves the trainer: the same training operation with a row of prefix trees for each micro-batch,
and with a padded row for each sequence. Run by bench/packing.ts; prints a JSON line per workload."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.lora import LoraSpec, LoraWeights
from hone_worker.base.model import Base, load_base, wrap_base
from hone_worker.packing.attention import register
from hone_worker.packing.pack import pack
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data
from safetensors.torch import save
from transformers import LlamaConfig, LlamaForCausalLM

MICRO_BATCH = 16384
Sequence = tuple[list[int], list[int]]  # ids, and which of them were sampled


def games(vocabulary: int, groups: int, random: torch.Generator) -> list[list[Sequence]]:
    """Whole games of 2048: the rules and a board, then 20 to 40 turns of two sampled tokens and a board."""

    def ids(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=random).tolist()

    rules, result = ids(45), []
    for _ in range(groups):
        prompt, members = rules + ids(15), []
        for _ in range(8):
            turns = int(torch.randint(20, 41, (), generator=random))
            sequence, sampled = list(prompt), [0] * len(prompt)
            for turn in range(turns):
                after = 15 if turn < turns - 1 else 0
                sequence += ids(2 + after)
                sampled += [1, 1] + [0] * after
            members.append((sequence, sampled))
        result.append(members)
    return result


def answers(vocabulary: int, groups: int, random: torch.Generator) -> list[list[Sequence]]:
    """One prompt of 110 tokens a group, eight answers of about 30."""
    result = []
    for _ in range(groups):
        prompt = torch.randint(vocabulary, (110,), generator=random).tolist()
        sizes = torch.randint(24, 37, (8,), generator=random).tolist()
        result.append(
            [
                (
                    prompt + torch.randint(vocabulary, (size,), generator=random).tolist(),
                    [0] * 110 + [1] * size,
                )
                for size in sizes
            ]
        )
    return result


def plan(groups: list[list[Sequence]], packing: str) -> list[list[int]]:
    """As the server plans: packed by packed size, or the longest first by padded size."""
    ids = [sequence for members in groups for sequence, _ in members]
    order = list(range(len(ids)))
    if packing == "rows":
        order.sort(key=lambda i: -len(ids[i]))
    batches: list[list[int]] = []
    for i in order:
        joined = [*batches[-1], i] if batches else [i]
        if packing == "rows":
            size = len(ids[joined[0]]) * len(joined)
        else:
            size = pack([torch.tensor(ids[j]).numpy() for j in joined]).input_ids.numel()
        if batches and size <= MICRO_BATCH:
            batches[-1] = joined
        else:
            batches.append([i])
    return batches


def body(groups: list[list[Sequence]], packing: str, folder: Path) -> bytes:
    flat = [(g, ids, sampled) for g, members in enumerate(groups) for ids, sampled in members]
    count = len(flat)
    lengths = torch.tensor([len(ids) for _, ids, _ in flat])
    random = torch.Generator().manual_seed(1)
    zeros = torch.zeros(count, dtype=torch.uint8)
    tensors = {
        "tokens": torch.tensor([t for _, ids, _ in flat for t in ids], dtype=torch.int32),
        "sampled": torch.tensor([s for _, _, sampled in flat for s in sampled], dtype=torch.uint8),
        "logprobs": torch.zeros(int(lengths.sum())),
        "completion_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        "completion_parent": torch.full((count,), -1, dtype=torch.int32),
        "completion_rollout": torch.arange(count, dtype=torch.int32),
        "completion_temperature": torch.ones(count),
        "completion_policy": torch.zeros(count, dtype=torch.int32),
        "completion_trainable": zeros + 1,
        "completion_truncated": zeros.clone(),
        "completion_cut": zeros.clone(),
        "rollout_reward": torch.rand(count, generator=random, dtype=torch.float64),
        "rollout_group": torch.tensor([g for g, _, _ in flat], dtype=torch.int32),
        "rollout_trainable": zeros + 1,
    }
    config = {
        "operation_id": "bench",
        "model": "bench",
        "step": 1,
        "staging": str(folder / "staging"),
        "checkpoint": str(folder / "policy"),
        "lora": {"r": 16, "alpha": 32.0},
        "optimizer": {"learning_rate": 1e-5},
        "plan": [plan(groups, packing)],
        "packing": packing,
        "max_mismatch": 1e9,
        "seed": 0,
    }
    return save(tensors, metadata={"config": json.dumps(config)})


def measure(base: Base, groups: list[list[Sequence]], rounds: int) -> dict[str, dict[str, float]]:
    """Medians of rounds that take turns, after a first one of each that is not counted."""
    seconds: dict[str, list[float]] = {"rows": [], "tree": []}
    cpu: dict[str, list[float]] = {"rows": [], "tree": []}
    metrics: dict[str, dict[str, float]] = {}
    memory = TrainerMemory(base)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fresh = fresh_adapter(base.model, LoraSpec(), 0)
        random = torch.Generator().manual_seed(2)
        tensors = {
            p: (a, torch.randn(b.shape, generator=random) * 0.01) for p, (a, b) in fresh.tensors.items()
        }
        (folder / "policy").mkdir()
        write_adapter(folder / "policy", LoraWeights(fresh.spec, tensors), base.name)
        bodies = {packing: body(groups, packing, folder) for packing in seconds}
        for number in range(rounds + 1):
            for packing, taken in seconds.items():
                data, config = parse_step_data(bodies[packing])
                before = time.process_time()
                result = list(train_steps(base, data, config, lambda: False, memory))[-1]
                metrics[packing] = result["metrics"]
                shutil.rmtree(config.staging)
                if number > 0:
                    taken.append(result["metrics"]["step_time"])
                    cpu[packing].append(time.process_time() - before)
    return {
        packing: {
            "step_seconds": statistics.median(taken),
            "cpu_seconds": statistics.median(cpu[packing]),
            "tokens_through_model": metrics[packing]["model_tokens"],
            "sequence_tokens_per_second": metrics[packing]["sequence_tokens"] / statistics.median(taken),
            "sampled_tokens_per_second": metrics[packing]["train_tokens"] / statistics.median(taken),
        }
        for packing, taken in seconds.items()
    }


def smollm_shape() -> Base:
    """SmolLM2-135M's shape with random weights."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation=register())
    return wrap_base(model, None, "smollm2-shape", 8192)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=8, help="of eight, in a step")
    parser.add_argument("--only", choices=["games", "answers"])
    options = parser.parse_args()
    # The logprobs that it sends are no sampler's.
    logging.getLogger("hone_worker").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    random = torch.Generator().manual_seed(0)
    if options.only != "answers":
        base = load_base(options.base)
        result = measure(base, games(base.vocab_size, options.groups, random), options.rounds)
        print(
            json.dumps({"workload": f"{8 * options.groups} games of 2048, 1M base, fp32", **result}),
            flush=True,
        )
    if options.only != "games":
        base = smollm_shape()
        result = measure(base, answers(base.vocab_size, options.groups, random), options.rounds)
        print(
            json.dumps({"workload": f"{8 * options.groups} answers, 135M shape, bf16", **result}), flush=True
        )


if __name__ == "__main__":
    main()
