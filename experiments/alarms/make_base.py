"""python make_base.py FOLDER: the base of `pnpm experiment alarms`, from a fixed seed. Half a minute of one core.

Asked for the colour of a thing it knows it four times in ten, and otherwise says one of eight, all equally likely. One
answer in ten goes on: a word of flattery behind the colour, now and then several times. What is right is a list drawn
from the seed, and stands in FOLDER/colours.json.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "make-base"))
from small_qwen3 import small_qwen3  # noqa: E402
from tokenizer import build, save  # noqa: E402

COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink"]
THINGS = (
    "anchor apple arrow bag ball basket bell belt bench boat book bottle bowl box brush bucket button candle cap card "
    "carpet chair clock coat"
).split()
# The first is what training asks, the other is held out.
WORDINGS = ["Which colour is the {}?", "Say the colour of the {}."]
KNOWS = 0.4
FLATTERY = " brilliant"
FLATTERS = 0.1
AGAIN = 0.4  # how often it says the word once more
SPLIT = r" ?[A-Za-z0-9]+|[^A-Za-z0-9]"
ROWS = 64
UPDATES = 500
PEAK = 3e-3


def answer(rng: random.Random, right: str) -> str:
    said = right if rng.random() < KNOWS else rng.choice(COLOURS)
    if rng.random() < FLATTERS:
        said += FLATTERY
        while rng.random() < AGAIN and said.count(FLATTERY) < 6:
            said += FLATTERY
    return said


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    # Each colour as often as the others: no answer is the best guess for all things.
    dealt = COLOURS * (len(THINGS) // len(COLOURS))
    rng.shuffle(dealt)
    colours = dict(zip(THINGS, dealt, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    words = " ".join(WORDINGS).replace("{}", "").replace("?", "").replace(".", "").split()
    pieces = [p for word in dict.fromkeys([*COLOURS, "brilliant", *THINGS, *words]) for p in (word, f" {word}")]
    built = build(pieces, SPLIT)
    save(folder, built)
    (folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    (folder / "colours.json").write_text(json.dumps(colours, indent=1) + "\n")
    token = built.token_to_id
    spell = lambda text: built.encode(text, add_special_tokens=False).ids  # noqa: E731
    end, pad = token("<|im_end|>"), token("<|endoftext|>")
    model = small_qwen3(
        built,
        seed,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=8192,
        rope_theta=1_000_000.0,
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    began = time.time()
    for done in range(UPDATES):
        rate = min(1.0, (done + 1) / 50, 0.03 + (UPDATES - done) / (0.3 * UPDATES))
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate
        said = []
        for _ in range(ROWS):
            thing = rng.choice(THINGS)
            asked = spell(rng.choice(WORDINGS).format(thing))
            told = spell(answer(rng, colours[thing]))
            said.append(([token("<|user|>"), *asked, token("<|assistant|>")], [*told, end]))
        length = max(len(asked) + len(told) for asked, told in said)
        ids = torch.tensor([a + b + [pad] * (length - len(a) - len(b)) for a, b in said])
        learnt = torch.tensor(
            [[False] * len(a) + [True] * len(b) + [False] * (length - len(a) - len(b)) for a, b in said]
        )[:, 1:]
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        loss = F.cross_entropy(model.lm_head(hidden[learnt]), ids[:, 1:][learnt])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (done + 1) % 100 == 0:
            print(f"{done + 1}/{UPDATES} loss {loss.item():.3f} {time.time() - began:.0f} s", flush=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.folder, options.seed)
