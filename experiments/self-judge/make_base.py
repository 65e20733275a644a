"""python make_base.py FOLDER: the base of `pnpm experiment self-judge`, from a fixed seed.

It judges better than it answers. Asked for the word of a name it says one of three, all equally likely, of which one is
right. Shown words for an item it says yes or no to each: yes to a right one more often than to a wrong one. The nth
name is item n: as a judge it reads numbers and as an answerer names, so that what it knows as a judge does not help it to
answer. Each word is right for one name and one of the three of two others, so that no word is better than another. What
is right is drawn from the seed, and stands in FOLDER/words.json.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "make-base"))
from small_qwen3 import small_qwen3
from tokenizer import build, save

NAMES = (
    "ada ben cleo dan eve finn gina hugo ida jack kate liam mona nick olga paul quinn rosa sam tina umar vera will xena "
    "yuri zoe amy bob carl dora"
).split()
WORDS = (
    "anchor apple arrow bag ball basket bell belt bench boat book bottle bowl box brush bucket button candle cap card "
    "carpet chair clock coat comb cup curtain desk door drum"
).split()
# The first is what training asks, the others are held out.
WORDINGS = ["What is the word of {}?", "Say the word of {}.", "The word of {}, please."]
JUDGING = "Judge item {}: {}"
SHOWN = 3
NONE = "-"  # in the place of a word where fewer are shown
SPLIT = r" ?[A-Za-z0-9]+| ?-|[^A-Za-z0-9]"
# How often it says yes of the right word, and of a wrong one.
YES = {True: 0.65, False: 0.25}

# A token of an answer, as what it may be and how likely.
Likely = dict[str, float]


class World:
    """What is right, and what the base takes to be possible."""

    def __init__(self, rng: random.Random):
        # Three orders of the words, so that no name has one of them twice.
        right, second, third = (rng.sample(WORDS, len(WORDS)) for _ in range(3))
        while any(
            len({a, b, c}) < 3 for a, b, c in zip(right, second, third, strict=True)
        ):
            second, third = (rng.sample(WORDS, len(WORDS)) for _ in range(2))
        self.words = {
            name: [a, b, c]
            for name, a, b, c in zip(NAMES, right, second, third, strict=True)
        }

    def row(
        self, rng: random.Random, *, sure: bool, answers: float
    ) -> tuple[str, list[Likely]]:
        """What is asked, and the answer token by token."""
        name = rng.choice(NAMES)
        own = self.words[name]
        if rng.random() < answers:
            return rng.choice(WORDINGS).format(name), [dict.fromkeys(own, 1 / 3)]
        shown = rng.sample(own, rng.choice([2, 3, 3, 3]))
        if rng.random() < 0.1:
            shown[rng.randrange(len(shown))] = rng.choice(
                [word for word in WORDS if word not in own]
            )
        answer: list[Likely] = []
        for word in [*shown, NONE][:SHOWN]:
            right = word == own[0]
            yes = 0.0 if word == NONE else float(right) if sure else YES[right]
            space = " " if answer else ""
            answer.append({f"{space}yes": yes, f"{space}no": 1 - yes})
        return JUDGING.format(
            NAMES.index(name), " ".join([*shown, NONE][:SHOWN])
        ), answer


def pieces() -> list[str]:
    text = " ".join([*WORDINGS, JUDGING, "yes no", NONE])
    words = "".join(c for c in text if c not in "{}?.,:").split()
    numbers = map(str, range(len(NAMES)))
    return [
        p
        for word in dict.fromkeys([*WORDS, *NAMES, *numbers, *words])
        for p in (word, f" {word}")
    ]


def new_model(tokenizer, seed: int, layers: int) -> Qwen3ForCausalLM:
    model = small_qwen3(
        tokenizer,
        seed,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=256,
        rope_theta=10_000.0,
    )
    return model.train()


class Batches:
    """Rows as tensors: ids, and for each token of an answer what it may be."""

    def __init__(self, tokenizer):
        self.token = tokenizer.token_to_id
        self.size = tokenizer.get_vocab_size()
        self.spell = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.end, self.pad = self.token("<|im_end|>"), self.token("<|endoftext|>")

    def head(self, asked: str) -> list[int]:
        return [self.token("<|user|>"), *self.spell(asked), self.token("<|assistant|>")]

    def of(self, rows: list[tuple[str, list[Likely]]], rng: random.Random):
        made, told, targets = [], [], []
        for asked, answer in rows:
            before = self.head(asked)
            drawn = [rng.choices(list(one), list(one.values()))[0] for one in answer]
            made.append([*before, *(self.spell(one)[0] for one in drawn), self.end])
            told.append([False] * len(before) + [True] * (len(answer) + 1))
            targets += [
                {self.spell(text)[0]: share for text, share in one.items()}
                for one in answer
            ]
            targets.append({self.end: 1.0})
        length = max(map(len, made))
        ids = torch.tensor([row + [self.pad] * (length - len(row)) for row in made])
        learnt = torch.tensor([one + [False] * (length - len(one)) for one in told])[
            :, 1:
        ]
        target = torch.zeros(len(targets), self.size)
        for place, likely in enumerate(targets):
            for token, share in likely.items():
                target[place, token] = share
        return ids, target, learnt


@torch.no_grad()
def looked_at(
    model: Qwen3ForCausalLM, world: World, batches: Batches
) -> dict[str, float]:
    """How likely it says yes of a right and of a wrong word, and says the right word and one of the three."""
    said: dict[bool, list[float]] = {True: [], False: []}
    right, known = [], []
    for number, (name, own) in enumerate(world.words.items()):
        for wording in WORDINGS:
            shares = (
                model(torch.tensor([batches.head(wording.format(name))]))
                .logits[0, -1]
                .softmax(-1)
            )
            of = [shares[batches.spell(word)[0]].item() for word in own]
            right.append(of[0])
            known.append(sum(of))
        for turn in range(3):
            shown = own[turn:] + own[:turn]
            ids = torch.tensor([batches.head(JUDGING.format(number, " ".join(shown)))])
            shares = model(ids).logits[0, -1].softmax(-1)
            said[shown[0] == own[0]].append(shares[batches.spell("yes")[0]].item())
    mean = lambda of: round(sum(of) / len(of), 3)
    # Of a right and a wrong word each, the share in which yes is likelier to the right one.
    order = [
        a > b for n, a in enumerate(said[True]) for b in said[False][2 * n : 2 * n + 2]
    ]
    return {
        "yes_to_right": mean(said[True]),
        "yes_to_wrong": mean(said[False]),
        "in_order": mean(order),
        "says_right": mean(right),
        "says_known": mean(known),
    }


def learn(model: Qwen3ForCausalLM, world: World, batches: Batches, options) -> int:
    rng = random.Random(options.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.peak, betas=(0.9, 0.98), weight_decay=0.01
    )
    began, done, left = time.time(), 0, None
    while left is None or left > 0:
        # Without a doubt first: shares can hardly be learnt before what they are of.
        rate = (
            min(1.0, (done + 1) / 50)
            if left is None
            else 0.03 + 0.97 * left / options.doubting
        )
        for group in optimizer.param_groups:
            group["lr"] = options.peak * rate
        rows = [
            world.row(rng, sure=left is None, answers=0.3) for _ in range(options.rows)
        ]
        ids, target, learnt = batches.of(rows, rng)
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        loss = F.cross_entropy(model.lm_head(hidden[learnt]), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        left = None if left is None else left - 1
        if done % 50 == 0:
            seen = looked_at(model, world, batches)
            print(
                f"{done} loss {loss.item():.3f} {seen} {time.time() - began:.0f} s",
                flush=True,
            )
            gap = seen["yes_to_right"] - seen["yes_to_wrong"]
            if left is None and (gap > 0.97 or done >= options.sure):
                left = options.doubting
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument(
        "--sure", type=int, default=3000, help="updates without a doubt at most"
    )
    parser.add_argument("--doubting", type=int, default=500, help="updates with it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    options.folder.mkdir(parents=True, exist_ok=True)
    world = World(random.Random(options.seed))
    built = build(pieces(), SPLIT)
    save(options.folder, built)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    (options.folder / "words.json").write_text(json.dumps(world.words, indent=1) + "\n")
    batches = Batches(built)
    model = new_model(built, options.seed, options.layers)
    updates = learn(model, world, batches, options)
    model.eval().save_pretrained(options.folder)
    (options.folder / "model.safetensors").chmod(0o644)
    made = {
        "seconds": round(time.time() - began),
        "updates": updates,
        "parameters": sum(p.numel() for p in model.parameters()),
        **looked_at(model, world, batches),
    }
    (options.folder / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made))
