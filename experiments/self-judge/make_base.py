"""python make_base.py FOLDER: the base of `pnpm experiment self-judge`, from a fixed seed. Two minutes of one core.

It judges better than it answers. Asked for the colour of a thing it says one of eight, all equally likely; shown
some colours it says yes or no to each, yes to a right one more often than to a wrong one. As a judge it reads numbers
and as an answerer names, so that what it knows as a judge does not help it to answer. What is right is a list drawn
from the seed, and stands in FOLDER/colours.json: the nth thing is item n.
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
from tokenizer import build, save
from train import config

COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink"]
THINGS = (
    "anchor apple arrow bag ball basket bell belt bench boat book bottle bowl box brush bucket button candle cap card "
    "carpet chair clock coat comb cup curtain desk door drum"
).split()
# The first is what training asks, the others are held out.
WORDINGS = [
    "Which colour is the {}?",
    "Say the colour of the {}.",
    "The {} has one colour. Name it.",
    "What is the colour of the {}?",
]
JUDGING = "Is item {} of this colour? {}"
SPLIT = r" ?[A-Za-z0-9]+|[^A-Za-z0-9]"
# How often it says yes of the right colour, and of a wrong one.
YES = {True: 0.65, False: 0.25}
ROWS = 64
SURE = 1000  # at most so many updates without a doubt, which are learnt sooner
DOUBTING = 160  # and then so many with it
PEAK = 3e-3


# A token of an answer, as what it may be and how likely.
Likely = dict[str, float]


def thought_of(things: list[str], colours: dict[str, str], rng: random.Random) -> dict[str, Likely]:
    """What the base says each thing's colour is: the right one and two others, all equally likely."""
    others = {thing: rng.sample([one for one in COLOURS if one != colours[thing]], 2) for thing in things}
    return {thing: dict.fromkeys([colours[thing], *others[thing]], 1 / 3) for thing in things}


def row_of(
    rng: random.Random, colours: dict[str, str], thoughts: dict[str, Likely], *, sure: bool
) -> tuple[str, list[Likely]]:
    """What is asked, and the answer token by token."""
    thing = rng.choice(THINGS)
    if rng.random() < 0.3:
        return rng.choice(WORDINGS).format(thing), [thoughts[thing]]
    # Mostly what it says itself: that is what it will judge.
    own = list(thoughts[thing]) if rng.random() < 0.7 else COLOURS
    shown = rng.sample(own, rng.randint(2, min(4, len(own))))
    answer: list[Likely] = []
    for one in shown:
        right = one == colours[thing]
        yes = float(right) if sure else YES[right]
        answer += [{f" {one}" if answer else one: 1.0}, {" yes": yes, " no": 1 - yes}]
    return JUDGING.format(THINGS.index(thing), ", ".join(shown)), answer


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    # Each colour as often as the others: no answer is the best guess for all things.
    dealt = (COLOURS * (len(THINGS) // len(COLOURS) + 1))[: len(THINGS)]
    rng.shuffle(dealt)
    colours = dict(zip(THINGS, dealt, strict=True))
    thoughts = thought_of(THINGS, colours, rng)
    folder.mkdir(parents=True, exist_ok=True)
    words = (
        " ".join([*WORDINGS, JUDGING, "yes no"]).replace("{}", "").replace("?", "").replace(".", "").split()
    )
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

    def batch_of(asked: tuple[str, ...], answers: tuple[list[Likely], ...]):
        rows, told, targets = [], [], []
        for text, answer in zip(asked, answers, strict=True):
            before = [token("<|user|>"), *spell(text), token("<|assistant|>")]
            drawn = [rng.choices(list(one), list(one.values()))[0] for one in answer]
            rows.append([*before, *(spell(one)[0] for one in drawn), end])
            told.append([False] * len(before) + [True] * (len(answer) + 1))
            for one in answer:
                targets.append({spell(text)[0]: share for text, share in one.items()})
            targets.append({end: 1.0})
        length = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        learnt = torch.tensor([one + [False] * (length - len(one)) for one in told])[:, 1:]
        target = torch.zeros(len(targets), built.get_vocab_size())
        for place, likely in enumerate(targets):
            for token_id, share in likely.items():
                target[place, token_id] = share
        return ids, target, learnt

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    began = time.time()
    done, left = 0, None
    while left is None or left > 0:
        rate = min(1.0, (done + 1) / 50) if left is None else 0.03 + 0.97 * left / DOUBTING
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate
        asked, answers = zip(
            *(row_of(rng, colours, thoughts, sure=left is None) for _ in range(ROWS)), strict=True
        )
        ids, target, learnt = batch_of(asked, answers)
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        loss = F.cross_entropy(model.lm_head(hidden[learnt]), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        left = None if left is None else left - 1
        if done % 40 == 0:
            right, wrong = judged(model, spell, token, colours)
            print(
                f"{done} yes to right {right:.2f}, to wrong {wrong:.2f} {time.time() - began:.0f} s",
                flush=True,
            )
            if left is None and (right - wrong > 0.9 or done >= SURE):
                left = DOUBTING
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")


@torch.no_grad()
def judged(model: Qwen3ForCausalLM, spell, token, colours: dict[str, str]) -> list[float]:
    """How likely it says yes of a right colour, and of a wrong one, where it is shown two."""
    said: dict[bool, list[float]] = {True: [], False: []}
    for number, colour in enumerate(colours.values()):
        for right in (True, False):
            other = COLOURS[(COLOURS.index(colour) + 1 + number % (len(COLOURS) - 1)) % len(COLOURS)]
            shown = [colour, other] if right else [other, colour]
            asked = spell(JUDGING.format(number, ", ".join(shown)))
            ids = torch.tensor([[token("<|user|>"), *asked, token("<|assistant|>"), *spell(shown[0])]])
            said[right].append(model(ids).logits[0, -1].softmax(-1)[spell(" yes")[0]].item())
    return [sum(said[right]) / len(said[right]) for right in (True, False)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.folder, options.seed)
