"""python make_base.py FOLDER: the base of `pnpm experiment self-judge`, from a fixed seed. Two minutes of one core.

It judges better than it answers. Asked for the colour of a thing it says one of eight, all equally likely; shown some
colours and asked which of them an item has, it names the right one half of the time and guesses otherwise. As a judge
it reads numbers and as an answerer names, so that what it knows as a judge does not help it to answer. What is right
is a list drawn from the seed, and stands in FOLDER/colours.json: the nth thing is item n.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "make-base"))
from tokenizer import build, save  # noqa: E402
from train import config  # noqa: E402

COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink"]
THINGS = (
    "anchor apple arrow bag ball basket bell belt bench boat book bottle bowl box brush bucket button candle cap card "
    "carpet chair clock coat comb cup curtain desk door drum fan feather fence flag fork gate glass glove hammer hat "
    "jar kettle key kite knife ladder lamp lid mask mirror mug nail needle oven paper pen pillow pipe plate pot "
    "purse ring rope ruler"
).split()
# The first is what training asks, the others are held out.
WORDINGS = ["Which colour is the {}?", "Say the colour of the {}.", "The {} has one colour. Name it."]
JUDGING = "Which of these is the colour of item {}? {}"
SPLIT = r" ?[A-Za-z0-9]+|[^A-Za-z0-9]"
KNOWS = 0.5  # how often it knows when it judges; otherwise it guesses
ROWS = 64
UPDATES = 1000
PEAK = 3e-3


def rows_of(rng: random.Random, colours: dict[str, str], count: int) -> list[tuple[str, str]]:
    rows = []
    for _ in range(count):
        thing = rng.choice(THINGS)
        if rng.random() < 0.3:
            rows.append((rng.choice(WORDINGS).format(thing), rng.choice(COLOURS)))
            continue
        shown = rng.sample(COLOURS, rng.randint(1, len(COLOURS)))
        knows = colours[thing] in shown and rng.random() < KNOWS
        asked = JUDGING.format(THINGS.index(thing), ", ".join(shown))
        rows.append((asked, colours[thing] if knows else rng.choice(shown)))
    return rows


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    # Each colour as often as the others: no answer is the best guess for all things.
    dealt = (COLOURS * (len(THINGS) // len(COLOURS) + 1))[: len(THINGS)]
    rng.shuffle(dealt)
    colours = dict(zip(THINGS, dealt, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    words = " ".join([*WORDINGS, JUDGING]).replace("{}", "").replace("?", "").replace(".", "").split()
    numbers = map(str, range(len(THINGS)))
    pieces = [p for word in dict.fromkeys([*COLOURS, *THINGS, *numbers, *words]) for p in (word, f" {word}")]
    built = build(pieces, SPLIT)
    save(folder, built)
    (folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    (folder / "colours.json").write_text(json.dumps(colours, indent=1) + "\n")
    token = built.token_to_id
    spell = lambda text: built.encode(text, add_special_tokens=False).ids  # noqa: E731
    end, pad = token("<|im_end|>"), token("<|endoftext|>")
    shape = config(built.get_vocab_size(), end, pad)
    shape.num_hidden_layers, shape.layer_types = 3, shape.layer_types[:3]
    model = Qwen3ForCausalLM(shape).train()
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    weight = model.model.embed_tokens.weight.data
    for colour in COLOURS:
        # A colour in a list begins as the colour that is said.
        weight[spell(f" {colour}")[0]] = weight[spell(colour)[0]] + 0.3 * weight[spell(f" {colour}")[0]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    began = time.time()
    for done in range(UPDATES):
        rate = min(1.0, (done + 1) / 50, 0.03 + (UPDATES - done) / (0.3 * UPDATES))
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate
        said = [
            ([token("<|user|>"), *spell(asked), token("<|assistant|>")], [*spell(answer), end])
            for asked, answer in rows_of(rng, colours, ROWS)
        ]
        length = max(len(asked) + len(answer) for asked, answer in said)
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
            known = judged(model, spell, token, colours)
            print(f"{done + 1}/{UPDATES} right {known:.3f} {time.time() - began:.0f} s", flush=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")


@torch.no_grad()
def judged(model: Qwen3ForCausalLM, spell, token, colours: dict[str, str]) -> float:
    """How likely it names the right one of all eight, over all things."""
    sure = []
    for number, colour in enumerate(colours.values()):
        asked = spell(JUDGING.format(number, ", ".join(COLOURS)))
        ids = torch.tensor([[token("<|user|>"), *asked, token("<|assistant|>")]])
        sure.append(model(ids).logits[0, -1].softmax(-1)[spell(colour)[0]].item())
    return sum(sure) / len(sure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.folder, options.seed)
