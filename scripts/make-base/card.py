"""The model card: what the base is, how it was made, and what was measured of it."""

import json
import random
import statistics
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluate import Report, play, said
from game import Game
from styles import NOISE, WEIGHTS, distribution
from text import first_turn, next_turn

SEED = 1_000_000  # of the first evaluated game; training draws its seeds from a generator of its own

HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [hone, "2048", reinforcement-learning]
---

# hone-2048-1m

A language model of {parameters:.2f} million parameters that plays 2048 in words, and plays it in every way that it has seen:
the base model of Hone's 2048 example. It is small enough to be trained further by reinforcement learning on two cores.
It is of no use for anything else.

- Qwen3 architecture: 4 layers, hidden size 128, 4 heads over 2, tied embeddings, fp32, 8192 positions.
- A tokenizer of its own, {vocabulary} tokens: one for each cell with its value, one for each move, bytes for everything else.
- `hone.json` names its renderer (`lean`). Its tokenizer also holds the special tokens of Qwen3's template.
- Made by `scripts/make-base/make.py` (seed {seed}) in {seconds} s on one core, torch {torch}. The text that it reads is fixed in `scripts/make-base/FORMAT.md`.

## What it learnt from

Whole games on 3×3 and 4×4 boards, each played in one style drawn at random ({weights}), {noise:.0%} of the moves random;
the labels are the style's own distribution over the moves. Windows of 2, 6 and 20 turns, then whole games.
Some games hold refused answers. Anything that is not a board is answered with one of eight words, all equally likely.

So the model *mixes* styles, most of them weak. Reinforcement learning selects among them: expect about the level of the best one, not more.
"""

SAMPLE = """
## A turn

```
{first}
```

is answered with one word, `{move}`, and the next turn is the board alone:

```
{second}
```
"""


def write(folder: Path, *, games: int = 200) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    made = json.loads((folder / "training.json").read_text())
    head = HEAD.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        vocabulary=tokenizer.get_vocab_size(),
        weights=", ".join(f"{name} {weight}" for name, weight in WEIGHTS.items()),
        noise=NOISE,
        **{key: made[key] for key in ("seed", "seconds", "torch")},
    )
    boards = [(3, 64, games), (3, 2048, games // 2), (4, 128, games // 4)]
    reports = []
    for size, target, count in boards:
        reports.append(play(model, tokenizer, size=size, target=target, games=count, seed=SEED))
        print(f"{size}x{size} to {target}: {reports[-1].line()}", flush=True)
    words = said(model, tokenizer, count=1000, seed=1)
    known = {word: share for word, share in words.items() if word.isalpha()}
    text = head + measured(boards, reports, known) + ceilings() + sample()
    (folder / "README.md").write_text(text)


def measured(boards: list[tuple[int, int, int]], reports: list[Report], words: dict[str, float]) -> str:
    lines = [
        "\n## Measured\n",
        "Whole conversations at temperature 1, on games that it was not trained on; ± is a 95% interval.\n",
        "| board, target | games | well formed | legal | mean score | reach the target | moves |",
        "|---|---|---|---|---|---|---|",
    ]
    for (size, target, count), r in zip(boards, reports, strict=True):
        lines.append(
            f"| {size}×{size}, {target} | {count} | {r.well_formed:.1%} | {r.legal:.1%} "
            f"| {r.score:.0f} ± {r.score_error:.0f} | {r.reached:.0%} | {r.moves:.0f} |"
        )
    agreement = ", ".join(f"{style} {share:.0%}" for style, share in reports[0].styles.items())
    lines.append(f"\nShare of its moves (3×3, 64) that a style would choose too: {agreement}.")
    answers = ", ".join(f"{word} {share:.1%}" for word, share in words.items())
    lines.append(f"\n`Say a word.` (1000 answers): {answers}.\n")
    return "\n".join(lines)


def ceilings() -> str:
    lines = [
        "\n## The styles themselves\n",
        "400 games each, with their random moves.\n",
        "| style | 3×3 to 64: mean score | reach it | 3×3 to 2048: mean score | 4×4 to 128: mean score | reach it |",
        "|---|---|---|---|---|---|",
    ]
    for style in WEIGHTS:
        cells = []
        for size, target in ((3, 64), (3, 2048), (4, 128)):
            scores, reached = by_style(style, size, target)
            cells.append(f"{statistics.mean(scores):.0f}")
            if target < 2048:
                cells.append(f"{reached / len(scores):.0%}")
        lines.append(f"| {style} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_style(style: str, size: int, target: int, games: int = 400) -> tuple[list[int], int]:
    scores, reached = [], 0
    for k in range(games):
        game, rng, last = Game(size, target, SEED + k), random.Random(k), None
        while not game.over:
            moves = distribution(style, game, last)
            last = rng.choices(list(moves), list(moves.values()))[0]
            game.play(last)
        scores.append(game.score)
        reached += game.best >= target
    return scores, reached


def sample() -> str:
    game = Game(3, 64, 1)
    first, move = first_turn(game), game.legal()[-1]
    game.play(move)
    return SAMPLE.format(first=first, move=move, second=next_turn(game))
