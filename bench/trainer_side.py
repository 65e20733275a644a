"""One side of `pnpm bench trainer`: a trainer that does one optimizer step for each line of its standard input and
answers with what it cost. Run by bench/trainer.ts, a process for each side, so that each has its own peak of memory.

hone            the worker's training operation: packed trees, reading and writing of the checkpoint included. It uses
                the threads as a worker does that measures at its start
hone-one        the same with one part of a micro-batch at a time
trl-plain       with a base in bfloat16: TRL without its default, autocast
trl, trl-recompute  TRL's GRPOTrainer: its `_compute_loss` on rows of eight, without and with (its default)
                recomputation of activations, then clip and AdamW
peft, peft-turns    plain PEFT and torch: padded rows of eight, and a row for each turn with all that was before it
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from packing import Sequence, body

ROWS = 8
Groups = list[list[Sequence]]


def answers(
    vocabulary: int, groups: int, random: torch.Generator, shared: int = 192
) -> Groups:
    """A prompt of 192 tokens a group and eight answers of 64. With shared = 0 every row has a prompt of its own."""
    result: Groups = []
    for _ in range(groups):
        prompt = _ids(vocabulary, 192, random)
        members = []
        for _ in range(8):
            start = prompt if shared else _ids(vocabulary, 192, random)
            members.append((start + _ids(vocabulary, 64, random), [0] * 192 + [1] * 64))
        result.append(members)
    return result


def conversations(vocabulary: int, groups: int, random: torch.Generator) -> Groups:
    """Eight rollouts of 20 turns over one prompt of 60 tokens: 8 to 16 sampled tokens, then 8 to 32 of a tool."""
    result: Groups = []
    for _ in range(groups):
        prompt, members = _ids(vocabulary, 60, random), []
        for _ in range(8):
            ids, sampled = list(prompt), [0] * 60
            for turn in range(20):
                said = int(torch.randint(8, 17, (), generator=random))
                after = (
                    int(torch.randint(8, 33, (), generator=random)) if turn < 19 else 0
                )
                ids += _ids(vocabulary, said + after, random)
                sampled += [1] * said + [0] * after
            members.append((ids, sampled))
        result.append(members)
    return result


def _ids(vocabulary: int, count: int, random: torch.Generator) -> list[int]:
    return torch.randint(vocabulary, (count,), generator=random).tolist()


def turns_apart(groups: Groups) -> Groups:
    """Each turn as a sequence of its own that begins with all turns before it."""
    result = []
    for members in groups:
        rows = []
        for ids, sampled in members:
            ends = [
                i + 1
                for i, s in enumerate(sampled)
                if s and (i + 1 == len(sampled) or not sampled[i + 1])
            ]
            start = 0
            for end in ends:
                rows.append((ids[:end], [0] * start + sampled[start:end]))
                start = end
        result.append(rows)
    return result


#: One step, and what else is to be told of a side.
Step = tuple[Callable[[], int], dict[str, Any]]


def hone(base_path: str, dtype: str, groups: Groups, *, one: bool) -> Step:
    from hone_worker.base.adapter_files import fresh_adapter, write_adapter
    from hone_worker.base.lora import LoraSpec
    from hone_worker.base.model import load_base
    from hone_worker.train.cores import Cores, measure_cores
    from hone_worker.train.memory import TrainerMemory
    from hone_worker.train.operation import train_steps
    from hone_worker.train.side_by_side import SideBySide
    from hone_worker.train.step_data import parse_step_data

    base = load_base(base_path, dtype=dtype)
    cores = measure_cores(base)
    if one:
        cores = Cores(cores.train, 1)
    torch.set_num_threads(cores.train)
    # For the life of a worker: what a token takes is measured once.
    memory = TrainerMemory(base, side_by_side=SideBySide(cores.parts))
    folder = Path(tempfile.mkdtemp())
    (folder / "policy").mkdir()
    weights = fresh_adapter(base.model, LoraSpec(), 0)
    for _, b in weights.tensors.values():
        b.normal_(0, 0.01, generator=torch.Generator().manual_seed(2))
    write_adapter(folder / "policy", weights, base.name)
    bytes_ = body(groups, "tree", folder)

    def step() -> int:
        data, config = parse_step_data(bytes_)
        *_, result = train_steps(base, data, config, lambda: False, memory)
        shutil.rmtree(config.staging)
        return int(result["metrics"]["model_tokens"])

    return step, {"cores": asdict(cores)}


def _rows(groups: Groups) -> list[Sequence]:
    return [row for members in groups for row in members]


def trl(
    base_path: str, dtype: str, groups: Groups, recompute: bool, autocast: bool = True
) -> Step:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=dtype == "bfloat16" and autocast,
        report_to=[],
        per_device_train_batch_size=ROWS,
        gradient_checkpointing=recompute,
        model_init_kwargs={"dtype": dtype},
    )
    trainer = GRPOTrainer(
        model=base_path,
        args=args,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * ROWS),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    # As `train()` does it: with a base in bfloat16 its forwards run under autocast.
    model = trainer.accelerator.prepare_model(trainer.model).train()
    sampled = sum(sum(s) for _, s in _rows(groups))
    batches = []
    rows = _rows(groups)
    for at in range(0, len(rows), ROWS):
        part = rows[at : at + ROWS]
        prompt = part[0][1].index(1)
        width = max(len(ids) for ids, _ in part) - prompt
        completion = torch.zeros(len(part), width, dtype=torch.long)
        tools, mask = torch.zeros_like(completion), torch.zeros_like(completion)
        for row, (ids, said) in enumerate(part):
            completion[row, : len(ids) - prompt] = torch.tensor(ids[prompt:])
            mask[row, : len(ids) - prompt] = 1
            tools[row, : len(ids) - prompt] = torch.tensor(said[prompt:])
        prompts = torch.tensor([ids[:prompt] for ids, _ in part])
        batches.append(
            {
                "prompt_ids": prompts,
                "prompt_mask": torch.ones_like(prompts),
                "completion_ids": completion,
                "completion_mask": mask,
                "tool_mask": tools,
                "advantages": torch.randn(
                    len(part), generator=torch.Generator().manual_seed(at)
                ),
                "num_items_in_batch": torch.tensor(float(sampled)),
            }
        )
    trainer.current_gradient_accumulation_steps = len(batches)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5
    )

    def step() -> int:
        for batch in batches:
            trainer._compute_loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return sum(
            b["prompt_ids"].numel() + b["completion_ids"].numel() for b in batches
        )

    return step, {}


def peft(base_path: str, dtype: str, groups: Groups) -> Step:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base_path, dtype=dtype),
        LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    ).train()
    rows = sorted(_rows(groups), key=lambda row: -len(row[0]))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5
    )

    def step() -> int:
        tokens = 0
        for at in range(0, len(rows), ROWS):
            part = rows[at : at + ROWS]
            width = max(len(ids) for ids, _ in part)
            tokens += width * len(part)
            ids, mask, said = (
                torch.zeros(len(part), width, dtype=torch.long) for _ in range(3)
            )
            for row, (given, sampled) in enumerate(part):
                ids[row, : len(given)] = torch.tensor(given)
                mask[row, : len(given)] = 1
                said[row, : len(given)] = torch.tensor(sampled)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[
                :, :-1
            ]
            logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[
                ..., 0
            ]
            (-(logprobs * said[:, 1:]).sum() / 1024).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return tokens

    return step, {}


def unique(groups: Groups) -> int:
    """Tokens of the trees: a beginning that sequences share counts once."""
    nodes: dict[tuple[int, int], int] = {}
    for ids, _ in _rows(groups):
        node = 0
        for token in ids:
            node = nodes.setdefault((node, token), len(nodes) + 1)
    return len(nodes)


def _memory(field: str) -> float:
    """MiB, of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--side",
        choices=["hone", "hone-one", "trl", "trl-plain", "trl-recompute", "peft", "peft-turns"],
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--base", required=True)
    parser.add_argument("--workload", choices=["a", "b", "c"])
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    # What the packages say on the standard output is not for the other end.
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    vocabulary = json.loads((Path(options.base) / "config.json").read_text())[
        "vocab_size"
    ]
    random = torch.Generator().manual_seed(0)
    groups = {
        "a": lambda: answers(vocabulary, options.groups, random),
        "b": lambda: conversations(vocabulary, options.groups, random),
        "c": lambda: answers(vocabulary, options.groups, random, shared=0),
    }[options.workload]()
    given = options.base, options.dtype
    sides = {
        "hone": lambda: hone(*given, groups, one=False),
        "hone-one": lambda: hone(*given, groups, one=True),
        "trl": lambda: trl(*given, groups, False),
        "trl-plain": lambda: trl(*given, groups, False, autocast=False),
        "trl-recompute": lambda: trl(*given, groups, True),
        "peft": lambda: peft(*given, groups),
        "peft-turns": lambda: peft(*given, turns_apart(groups)),
    }
    step, told = sides[options.side]()
    distinct = unique(groups)
    stands = _memory("VmRSS")
    print(json.dumps({"ready": options.side, **told}), file=answer)
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        cpu, wall = time.process_time(), time.perf_counter()
        tokens = step()
        taken = {
            "seconds": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
        }
        memory = {"peak": _memory("VmHWM"), "stands": stands}
        print(
            json.dumps({**taken, **memory, "tokens": tokens, "unique": distinct}),
            file=answer,
        )


if __name__ == "__main__":
    main()
