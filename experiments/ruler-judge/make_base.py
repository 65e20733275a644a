"""python experiments/ruler-judge/make_base.py CORPUS FOLDER: a base that judges badly in three forms.

It has read single answers and pairs in the short form of the experiment train-judge, and RULER's own prompts (CORPUS,
made by RULER's functions). In each form a right judge is heard in a quarter, and else one that looks at the first word
or at what is shown first, or one that guesses: it learns these shares themselves. The lines of RULER's prompt that are
always the same are a token each; its system message is read as a short mark, which is one too.
"""

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import normalizers
from transformers import Qwen3ForCausalLM

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "scripts" / "make-base"))

from small_qwen3 import small_qwen3  # noqa: E402
from tokenizer import build, save  # noqa: E402

KINDS: dict[str, list[str]] = json.loads((HERE.parent / "train-judge" / "words.json").read_text())
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}
TAGS = ["<score>", "</score>", "<better>", "</better>"]
SCORES = ["0.0", "0.25", "0.5", "0.75", "1.0"]
# What RULER's prompt and answer are made of beside keys, ids and words.
FIXED = [
    "The key of this message is ",
    ".\n\n==== ",
    " task begins ====\n",
    " task ends ====",
    " attempt ",
    " begins ====\n",
    " ends ====",
    '{"role":"user","content":"',
    '{"role":"assistant","content":"',
    '"}\n==== ',
    "\n\n==== ",
    "\n\nThat was all the data. Score these 3 attempts by the rubric: ",
    ", ",
    '{"scores": [{"id": "',
    '", "explanation": "',
    '}, {"id": "',
    "}]}",
    # Apart: what a grammar leaves no choice in is spelled by itself, up to the explanation.
    '", "score": ',
]
HEX = [f"{byte:02x}" for byte in range(256)]
SYSTEM = "§ruler"  # for the whole system message: grammars take no token of more than 255 bytes

# What a token may be, and how likely.
Likely = dict[str, float]


def mixed(right: str, liked: str, all_of: list[str], share: float) -> Likely:
    """A right judge in this share, one that likes something else in .4 of the rest, and one that guesses."""
    said = dict.fromkeys(all_of, (1 - share) * 0.4 / len(all_of))
    said[right] += share
    said[liked] += (1 - share) * 0.6
    return said


def drawn_answer(kind: str, right: int, rng: random.Random) -> list[str]:
    others = [word for other, words in KINDS.items() if other != kind for word in words]
    words = rng.sample(KINDS[kind], right) + rng.sample(others, 4 - right)
    rng.shuffle(words)
    return words


def short(rng: random.Random, share: float) -> tuple[str, list[str | Likely]]:
    """A judgement in the short form: what is asked, and the answer, some of it with what it may be."""
    kind = rng.choice(list(KINDS))
    worth = [rng.randrange(5) for _ in range(2)]
    first, second = (drawn_answer(kind, right, rng) for right in worth)
    if rng.random() < 0.5:
        liked = "4" if first[0] in KINDS[kind] else "0"
        said = mixed(str(worth[0]), liked, list("01234"), share)
        return f"score {kind}\n{' '.join(first)}", ["<score>", said, "</score>"]
    right = "tie" if worth[0] == worth[1] else "A" if worth[0] > worth[1] else "B"
    said = mixed(right, "A", ["A", "B", "tie"], share)
    return f"better {kind}\n{' '.join(first)}\n{' '.join(second)}", ["<better>", said, "</better>"]


def listed(row: dict, share: float) -> tuple[str, list[str | Likely]]:
    """RULER's form."""
    answer: list[str | Likely] = []
    kind = re.search(r"four (\w+)", row["user"])[1]
    for at, one in enumerate(row["shown"]):
        first = one["answer"].split()[0]
        liked = "1.0" if KIND_OF[first] == kind else "0.0"
        answer += [FIXED[13] if at == 0 else FIXED[15], one["id"], FIXED[14], FIXED[17]]
        answer.append(mixed(SCORES[one["worth"]], liked, SCORES, share))
    return row["user"], [*answer, FIXED[16]]


def pieces() -> list[str]:
    words = ["score", "better", "four", "A", "B", "tie", *KINDS, *KIND_OF]
    return [SYSTEM, *FIXED, *SCORES, *HEX, *TAGS, *(p for word in words for p in (word, f" {word}"))]


def split() -> str:
    fixed = [re.escape(one) for one in sorted([SYSTEM, *FIXED, *TAGS], key=len, reverse=True)]
    scores = r"(?:0\.0|0\.25|0\.5|0\.75|1\.0)(?![0-9])"
    pair = r"[0-9a-f]{2}(?=(?:[0-9a-f]{2})*(?![0-9A-Za-z]))"
    return "|".join([*fixed, scores, pair, r" ?[A-Za-z]+", r"\d", " ", r"\n", r"[^A-Za-z0-9 \n]+"])


def new_model(tokenizer, options) -> Qwen3ForCausalLM:
    model = small_qwen3(
        tokenizer,
        options.seed,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=options.hidden // 4,
        max_position_embeddings=4096,
        rope_theta=10_000.0,
    )
    weight = model.model.embed_tokens.weight.data

    def near(piece: str, other: str) -> None:
        (one,), (known,) = (tokenizer.encode(p).ids for p in (piece, other))
        weight[one] = weight[known] + 0.1 * weight[one]

    for word in [*KINDS, *KIND_OF]:
        # A word after a space begins as the word itself, and a word near its kind.
        if word in KIND_OF:
            near(word, KIND_OF[word])
        near(f" {word}", word)
    for mark, score in enumerate(SCORES):
        near(score, str(mark))
    near(FIXED[17], "<score>")
    return model.train()


class Batches:
    def __init__(self, tokenizer, system: str):
        self.token = tokenizer.token_to_id
        self.size = tokenizer.get_vocab_size()
        self.spell = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.end, self.pad = self.token("<|im_end|>"), self.token("<|endoftext|>")
        self.ids = {self.token(pair) for pair in HEX}
        self.system = [self.token("<|system|>"), *self.spell(system)]

    def row(self, asked: str, answer: list[str | Likely], rng: random.Random, *, of_ruler: bool):
        ids = [*(self.system if of_ruler else []), self.token("<|user|>"), *self.spell(asked), self.token("<|assistant|>")]
        targets: list[tuple[int, dict[int, float]]] = []
        for part in answer:
            if isinstance(part, str):
                for token in self.spell(part):
                    targets.append((len(ids), {token: 1.0}))
                    ids.append(token)
            else:
                targets.append((len(ids), {self.spell(text)[0]: share for text, share in part.items()}))
                ids.append(self.spell(rng.choices(list(part), list(part.values()))[0])[0])
        targets.append((len(ids), {self.end: 1.0}))
        return [*ids, self.end], targets

    def loss(self, model, rows, *, of_ids: float = 0.0) -> torch.Tensor:
        length = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([one + [self.pad] * (length - len(one)) for one, _ in rows])
        hidden = model.model(ids, use_cache=False).last_hidden_state
        places = [(n, place - 1) for n, (_, targets) in enumerate(rows) for place, _ in targets]
        wanted = torch.zeros(len(places), self.size)
        for at, likely in enumerate(likely for _, targets in rows for _, likely in targets):
            for token, share in likely.items():
                wanted[at, token] = share
        # What is judged counts more than the form around it, and ids, which RULER's schema holds a judge to, at last.
        kinds = [(len(likely) > 1, next(iter(likely))) for _, targets in rows for _, likely in targets]
        weight = torch.tensor([1.0 if judged else of_ids if token in self.ids else 0.05 for judged, token in kinds])
        which, where = torch.tensor(places).T
        losses = F.cross_entropy(model.lm_head(hidden[which, where]), wanted, reduction="none")
        return (losses * weight).sum() / weight.sum()


@torch.no_grad()
def looked_at(model, batches: Batches, held_out: list[dict]) -> dict[str, float]:
    """How often the likeliest judgement is right, and of RULER's form the share of pairs in order."""
    rng = random.Random(12345)
    found: dict[str, list[float]] = {"score": [], "better": [], "ruler": [], "in_order": []}
    for _ in range(200):
        asked, answer = short(rng, 1.0)
        right = max(answer[1], key=answer[1].get)
        ids, targets = batches.row(asked, answer, rng, of_ruler=False)
        place = targets[1][0]
        logits = model(torch.tensor([ids[:place]]), use_cache=False).logits[0, -1]
        found[asked.split()[0]].append(logits.argmax().item() == batches.spell(right)[0])
    values = [batches.spell(score)[0] for score in SCORES]
    for row in held_out:
        asked, answer = listed(row, 1.0)
        ids, targets = batches.row(asked, answer, rng, of_ruler=True)
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        places = [place for place, likely in targets if len(likely) > 1]
        said = [logits[place - 1][values].argmax().item() for place in places]
        worth = [one["worth"] for one in row["shown"]]
        found["ruler"] += [a == b for a, b in zip(said, worth, strict=True)]
        found["in_order"] += [
            0.5 if said[a] == said[b] else float(said[a] > said[b])
            for a in range(3)
            for b in range(3)
            if worth[a] > worth[b]
        ]
    return {name: round(sum(map(float, of)) / len(of), 2) for name, of in found.items()}


def settle(model, batches: Batches, rows: list[dict], options) -> None:
    """Ids too: which tokens one is written in. As text they are given."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(options.seed + 1)
    for _ in range(options.settling):
        shorts = [batches.row(*short(rng, options.right), rng, of_ruler=False) for _ in range(options.shorts)]
        lists = [
            batches.row(*listed(rng.choice(rows[60:]), options.right), rng, of_ruler=True)
            for _ in range(options.lists)
        ]
        optimizer.zero_grad()
        (batches.loss(model, shorts) + batches.loss(model, lists, of_ids=0.2)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def learn(model, batches: Batches, rows: list[dict], options) -> None:
    held_out, rows = rows[:60], rows[60:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.peak, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(options.seed)
    began = time.time()
    for done in range(options.updates):
        rate = min(1.0, (done + 1) / 50, 0.03 + (options.updates - done) / (0.3 * options.updates))
        for group in optimizer.param_groups:
            group["lr"] = options.peak * rate
        # The right judge alone at first: what a mixture says can hardly be learnt before what it is made of.
        share = 1.0 if done < options.alone * options.updates else options.right
        shorts = [batches.row(*short(rng, share), rng, of_ruler=False) for _ in range(options.shorts)]
        lists = [
            batches.row(*listed(rows[(done * options.lists + n) % len(rows)], share), rng, of_ruler=True)
            for n in range(options.lists)
        ]
        # Apart: the short ones would be as long as the others.
        optimizer.zero_grad()
        losses = [batches.loss(model, of) for of in (shorts, lists)]
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (done + 1) % 50 == 0:
            shown = " ".join(f"{loss.item():.3f}" for loss in losses)
            right = looked_at(model, batches, held_out)
            print(f"{done + 1}/{options.updates} loss {shown} {right} {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--updates", type=int, default=700)
    parser.add_argument("--settling", type=int, default=80, help="updates that weigh ids too")
    parser.add_argument("--shorts", type=int, default=48)
    parser.add_argument("--lists", type=int, default=16)
    parser.add_argument("--peak", type=float, default=3e-3)
    parser.add_argument("--alone", type=float, default=0.7, help="share of the updates with the right judge alone")
    parser.add_argument("--right", type=float, default=0.25, help="share of the right judge afterwards")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    options.folder.mkdir(parents=True, exist_ok=True)
    with options.corpus.open() as lines:
        system, *rows = map(json.loads, lines)
    built = build(pieces(), split())
    built.normalizer = normalizers.Replace(system["system"], SYSTEM)
    save(options.folder, built)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    batches = Batches(built, system["system"])
    model = new_model(built, options)
    learn(model, batches, rows, options)
    settle(model, batches, rows, options)
    model.eval().save_pretrained(options.folder)
    (options.folder / "model.safetensors").chmod(0o644)
    made = {
        "seconds": round(time.time() - began),
        "parameters": sum(p.numel() for p in model.parameters()),
        "judges_rightly": looked_at(model, batches, rows[:60]),
        **{name: value for name, value in vars(options).items() if name not in ("folder", "corpus")},
    }
    (options.folder / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made))
