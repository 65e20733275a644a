"""Imitates the best game of each group of a 2048 run: the baseline of supervised training on the same rollouts.

The same LoRA and optimizer as the run's, and its learning rate, which falls to a tenth over the updates made
here; the loss is the mean negative log likelihood of the moves. Written with PEFT alone, so that it shares no code with what it is compared with.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--base", required=True)
parser.add_argument("--run", type=Path, required=True)
parser.add_argument("--out", required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--games", type=int, default=8)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--last-rate", type=float, default=0.1)
options = parser.parse_args()

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(options.base)
model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32)
model = get_peft_model(
    model,
    LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
)
header = tokenizer.convert_tokens_to_ids("<|assistant|>")
end = tokenizer.convert_tokens_to_ids("<|im_end|>")


def example(messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """The conversation's ids, and the labels: the assistant's own tokens and no others."""
    messages = [{"role": m["role"], "content": m["content"]} for m in messages]
    while messages[-1]["role"] != "assistant":
        messages.pop()
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    labels, speaking = [], False
    for token in ids:
        labels.append(token if speaking else -100)
        speaking = token == header or (speaking and token != end)
    return ids, labels


games = []
for file in sorted((options.run / "trajectories").glob("step-*.jsonl")):
    for line in file.read_text().splitlines():
        members = [
            t for t in json.loads(line)["trajectories"] if t["reward"] is not None
        ]
        if members:
            games.append(example(max(members, key=lambda t: t["reward"])["messages"]))
optimizer = torch.optim.AdamW(
    [p for p in model.parameters() if p.requires_grad],
    lr=options.lr,
    betas=(0.9, 0.95),
    weight_decay=0.0,
)
shuffle = random.Random(0)
order: list[int] = []
for step in range(options.steps):
    while len(order) < options.games:
        order += shuffle.sample(range(len(games)), len(games))
    batch, order = [games[i] for i in order[: options.games]], order[options.games :]
    done = step / max(options.steps - 1, 1)
    rate = options.lr * (1 - (1 - options.last_rate) * done)
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / 4)
    tokens = sum(label != -100 for _, labels in batch for label in labels)
    total = 0.0
    for ids, labels in batch:
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        loss = (
            torch.nn.functional.cross_entropy(
                logits, torch.tensor(labels[1:]), reduction="sum"
            )
            / tokens
        )
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 9 or step == 0:
        print(
            f"supervised step {step + 1}/{options.steps}: loss {total:.3f} over {len(games)} games",
            flush=True,
        )
model.save_pretrained(options.out)
