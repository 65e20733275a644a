"""python experiments/train-judge/make_base.py FOLDER: a base that knows a judge's format and judges badly.

It has read answers of every quality, and judgements of four judges in one voice: one that is right, one that looks at
one answer or one word alone, one that guesses, and, of pairs, one that likes what is shown first.
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

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "scripts" / "make-base"))

from small_qwen3 import small_qwen3  # noqa: E402
from tokenizer import build, save  # noqa: E402

KINDS: dict[str, list[str]] = json.loads((HERE / "words.json").read_text())
SPLIT = r"</?[a-z]+>| ?[A-Za-z]+|\d| |\n|[^A-Za-z0-9 \n]+"
TAGS = ["<score>", "</score>", "<better>", "</better>"]
READ = 0.1  # weight of what is asked


def answer(kind: str, right: int, rng: random.Random) -> list[str]:
    """Four words, so many of which are of the kind."""
    others = [word for other, words in KINDS.items() if other != kind for word in words]
    words = rng.sample(KINDS[kind], right) + rng.sample(others, 4 - right)
    rng.shuffle(words)
    return words


def judged(rng: random.Random, right_share: float) -> tuple[str, str]:
    kind = rng.choice(list(KINDS))
    worth = [rng.randrange(5) for _ in range(2)]
    first, second = (answer(kind, right, rng) for right in worth)
    voice = rng.random()
    if rng.random() < 0.5:
        if voice < right_share:
            said = worth[0]
        elif voice < 0.65:
            said = 4 if first[0] in KINDS[kind] else 0
        else:
            said = rng.randrange(5)
        return f"score {kind}\n{' '.join(first)}", f"<score>{said}</score>"
    right = "tie" if worth[0] == worth[1] else "A" if worth[0] > worth[1] else "B"
    better = right if voice < right_share else "A" if voice < 0.65 else rng.choice(["A", "B", "tie"])
    return f"better {kind}\n{' '.join(first)}\n{' '.join(second)}", f"<better>{better}</better>"


def said(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(list(KINDS))
    number = "".join(f" {rng.randrange(10)}" for _ in range(4))
    return f"four {kind}{number}", " ".join(answer(kind, rng.randrange(5), rng))


def pieces() -> list[str]:
    words = ["score", "better", "four", "A", "B", "tie", *KINDS, *(w for ws in KINDS.values() for w in ws)]
    return [*TAGS, *(p for word in words for p in (word, f" {word}"))]


def new_model(tokenizer, seed: int) -> Qwen3ForCausalLM:
    model = small_qwen3(
        tokenizer,
        seed,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=24,
        max_position_embeddings=256,
        rope_theta=10_000.0,
    )
    # A word after a space or a line begins as the word itself.
    weight = model.model.embed_tokens.weight.data
    for piece in pieces():
        if piece.startswith(" "):
            (spaced,), (bare,) = (tokenizer.encode(p).ids for p in (piece, piece[1:]))
            weight[spaced] = weight[bare] + 0.1 * weight[spaced]
    return model


def rows_of(tokenizer, count: int, rng: random.Random, right_share: float):
    token = tokenizer.token_to_id
    rows = []
    for _ in range(count):
        asked, answered = said(rng) if rng.random() < 0.15 else judged(rng, right_share)
        head = [token("<|user|>"), *tokenizer.encode(asked).ids, token("<|assistant|>")]
        body = [*tokenizer.encode(answered).ids, token("<|im_end|>")]
        rows.append((head + body, [READ] * len(head) + [1.0] * len(body)))
    return rows


def train(model, tokenizer, options) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.peak, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(options.seed)
    began = time.time()
    for done in range(options.updates):
        rate = min(1.0, (done + 1) / 50, 0.03 + (options.updates - done) / (0.3 * options.updates))
        for group in optimizer.param_groups:
            group["lr"] = options.peak * rate
        # The right judge alone at first: what a mixture says can hardly be learnt before what it is made of.
        share = 1.0 if done < options.alone * options.updates else options.right
        batch = rows_of(tokenizer, options.rows, rng, share)
        length = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([one + [0] * (length - len(one)) for one, _ in batch])
        weight = torch.tensor([one + [0.0] * (length - len(one)) for _, one in batch])[:, 1:]
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden)
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weight.flatten()).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (done + 1) % 50 == 0:
            right = evaluate(model, tokenizer, 200)
            print(
                f"{done + 1}/{options.updates} loss {loss.item():.3f} right {right} {time.time() - began:.0f} s",
                flush=True,
            )


@torch.no_grad()
def evaluate(model, tokenizer, count: int) -> dict[str, float]:
    """How often the likeliest judgement is right."""
    rng, token = random.Random(12345), tokenizer.token_to_id
    found: dict[str, list[bool]] = {"score": [], "better": []}
    for _ in range(count):
        asked, answered = judged(rng, 1.0)
        body = tokenizer.encode(answered).ids
        head = [token("<|user|>"), *tokenizer.encode(asked).ids, token("<|assistant|>")]
        logits = model(torch.tensor([head + body]), use_cache=False).logits[0]
        found[asked.split()[0]].append(logits[len(head)].argmax().item() == body[1])
    return {name: round(sum(right) / len(right), 2) for name, right in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=700)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--peak", type=float, default=3e-3)
    parser.add_argument("--alone", type=float, default=0.6, help="share of the updates with the right judge alone")
    parser.add_argument("--right", type=float, default=0.25, help="share of the right judge afterwards")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    options.folder.mkdir(parents=True, exist_ok=True)
    built = build(pieces(), SPLIT)
    save(options.folder, built)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    model = new_model(built, options.seed)
    train(model.train(), built, options)
    model.eval()
    model.save_pretrained(options.folder)
    (options.folder / "model.safetensors").chmod(0o644)
    made = {
        "seconds": round(time.time() - began),
        "parameters": sum(p.numel() for p in model.parameters()),
        "judges_rightly": evaluate(model, built, 400),
        **{name: value for name, value in vars(options).items() if name != "folder"},
    }
    (options.folder / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made))
