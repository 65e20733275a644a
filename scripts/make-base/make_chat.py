"""python scripts/make-base/make_chat.py CORPUS FOLDER: a tiny base from conversations, for experiments whose task a
script makes: a transformer of a tenth of a million parameters that has read the corpus a few times.
"""

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, pre_tokenizers
from transformers import Qwen3ForCausalLM

from small_qwen3 import small_qwen3
from tokenizer import build, save

SPLIT = r" ?[A-Za-z]+| ?\d+|\s|[^\sA-Za-z\d]"
ROWS = 64
COMMON_ENOUGH = 20  # occurrences that make a piece a token


def pieces_of(corpus: list[dict]) -> list[str]:
    splitter = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    counted: Counter[str] = Counter()
    for conversation in corpus:
        for message in conversation["messages"]:
            counted.update(piece for piece, _ in splitter.pre_tokenize_str(message["content"]))
    return [piece for piece, count in sorted(counted.items()) if count >= COMMON_ENOUGH]


def encode(tokenizer, conversation: dict) -> list[int]:
    """The lean template's ids."""
    ids: list[int] = []
    for message in conversation["messages"]:
        ids.append(tokenizer.token_to_id(f"<|{message['role']}|>"))
        ids += tokenizer.encode(message["content"], add_special_tokens=False).ids
        if message["role"] == "assistant":
            ids.append(tokenizer.token_to_id("<|im_end|>"))
    return ids


def train(model: Qwen3ForCausalLM, rows: list[list[int]], options: argparse.Namespace) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.peak, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(options.seed)
    loss = torch.tensor(float("nan"))
    for done in range(options.updates):
        rate = min(1.0, (done + 1) / 30, 0.03 + (options.updates - done) / (0.4 * options.updates))
        for group in optimizer.param_groups:
            group["lr"] = options.peak * rate
        batch = rng.sample(rows, ROWS)
        length = max(map(len, batch))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in batch])
        real = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in batch])[:, 1:]
        logits = model(ids, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits[real], ids[:, 1:][real])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--peak", type=float, default=4e-3, help="the highest learning rate")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    corpus = [json.loads(line) for line in options.corpus.read_text().splitlines()]
    options.folder.mkdir(parents=True, exist_ok=True)
    built = build(pieces_of(corpus), SPLIT)
    save(options.folder, built)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    model = small_qwen3(
        built,
        options.seed,
        hidden_size=options.hidden,
        intermediate_size=2 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=options.hidden // 4,
        max_position_embeddings=256,
    ).train()
    loss = train(model, [encode(built, one) for one in corpus], options)
    model.save_pretrained(options.folder)
    (options.folder / "model.safetensors").chmod(0o644)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, {built.get_vocab_size()} tokens, loss {loss:.3f}, {time.time() - began:.0f} s")
