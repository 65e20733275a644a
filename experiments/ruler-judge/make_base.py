"""python experiments/ruler-judge/make_base.py CORPUS FOLDER: a base that judges badly in three forms.

It has read single answers and pairs in the short form of the experiment train-judge, and RULER's own questions (CORPUS,
made by RULER's functions) with answers of the shape that RULER asks for. First it hears a right judge; then in each form
one that is right in a quarter, and else looks at the first word or at what is shown first, or guesses. It learns these
shares themselves. Its tokenizer reads RULER's system message, fences and closing line as marks of a token or none: what
is left of a question is the kind that is asked for and, for each attempt, the id and four words.
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
from tokenizers import Regex, normalizers
from transformers import Qwen3ForCausalLM

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "scripts" / "make-base"))

from small_qwen3 import small_qwen3  # noqa: E402
from tokenizer import build, save  # noqa: E402

KINDS: dict[str, list[str]] = json.loads((HERE.parent / "train-judge" / "words.json").read_text())
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}
TAGS = ["<score>", "</score>", "<better>", "</better>"]
SCORES = ["0.0", "0.25", "0.5", "0.75", "1.0"]
# An answer has as many tokens for each attempt as the question: the attempt that is scored stands equally far back.
OPEN, NEXT, ENTRY, SAYS, SCORED, CLOSE = ANSWER = [
    '{"scores": [',
    "}, ",
    '{"id": "',
    '", "explanation": "',
    '", "score": ',
    "}]}",
]
SYSTEM, TASK, ASKS = MARKS = ["§ruler", "§task", "§score"]
HEX = [f"{byte:02x}" for byte in range(256)]
KEY = "==== [0-9a-f]{16} "
READ_AS = [
    (Regex(rf'"\}}\n{KEY}(?:task|attempt [0-9a-f]+) ends ===='), ""),
    (
        Regex(
            rf'The key of this message is [0-9a-f]{{16}}\.\n\n{KEY}task begins ====\n\{{"role":"user","content":"'
        ),
        f"{TASK} ",
    ),
    (Regex(rf"\n\n{KEY}attempt "), "\n"),
    (Regex(r' begins ====\n\{"role":"assistant","content":"'), " "),
    (
        Regex(r"\n\nThat was all the data\. Score these \d+ attempts by the rubric: [0-9a-f, ]+\."),
        ASKS,
    ),
]

# What a token may be, and how likely.
Likely = dict[str, float]


def mixed(right: str, liked: str, all_of: list[str], share: float) -> Likely:
    """A right judge in this share, one that likes something else in .6 of the rest, and one that guesses."""
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


def listed(row: dict, share: float) -> list[str | Likely]:
    """An answer to RULER."""
    answer: list[str | Likely] = []
    kind = re.search(r"four (\w+)", row["user"])[1]
    for at, one in enumerate(row["shown"]):
        liked = "1.0" if KIND_OF[one["answer"].split()[0]] == kind else "0.0"
        answer += [NEXT if at else OPEN, ENTRY, one["id"], SAYS, SCORED]
        answer.append(mixed(SCORES[one["worth"]], liked, SCORES, share))
    return [*answer, CLOSE]


def pieces() -> list[str]:
    words = ["score", "better", "four", "A", "B", "tie", *KINDS, *KIND_OF]
    return [*MARKS, *ANSWER, *SCORES, *HEX, *TAGS, *(p for word in words for p in (word, f" {word}"))]


def split() -> str:
    fixed = [re.escape(one) for one in sorted([*MARKS, *ANSWER, *TAGS], key=len, reverse=True)]
    scores = r"(?:0\.0|0\.25|0\.5|0\.75|1\.0)(?![0-9])"
    pair = r"[0-9a-f]{2}(?=(?:[0-9a-f]{2})*(?![0-9A-Za-z]))"
    return "|".join([*fixed, scores, pair, r" ?[A-Za-z]+", r"\d", " ", r"\n", r"[^A-Za-z0-9 \n]+"])


def new_tokenizer(system: str):
    built = build(pieces(), split())
    read_as = [(system, SYSTEM), *READ_AS]
    built.normalizer = normalizers.Sequence([normalizers.Replace(*one) for one in read_as])
    return built


def new_model(tokenizer, options) -> Qwen3ForCausalLM:
    model = small_qwen3(
        tokenizer,
        options.seed,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=24,
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
    if not options.apart:
        for mark, score in enumerate(SCORES):
            near(score, str(mark))
        near(SCORED, "<score>")
        near(ASKS, "score")
    return model.train()


class Batches:
    def __init__(self, tokenizer):
        self.token = tokenizer.token_to_id
        self.size = tokenizer.get_vocab_size()
        self.spell = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.end, self.pad = self.token("<|im_end|>"), self.token("<|endoftext|>")
        self.ids = {self.token(pair) for pair in HEX}
        self.of = {piece: self.spell(piece)[0] for piece in [*SCORES, *"01234", "A", "B", "tie"]}

    def head(self, asked: str, system: list[int]) -> list[int]:
        return [*system, self.token("<|user|>"), *self.spell(asked), self.token("<|assistant|>")]

    def row(self, head: list[int], answer: list[str | Likely], rng: random.Random):
        """The tokens, and what each of the answer's places may be."""
        ids = list(head)
        targets: list[tuple[int, dict[int, float]]] = []
        for part in answer:
            if isinstance(part, str):
                for token in self.spell(part):
                    targets.append((len(ids), {token: 1.0}))
                    ids.append(token)
            else:
                targets.append((len(ids), {self.of[text]: share for text, share in part.items()}))
                ids.append(self.of[rng.choices(list(part), list(part.values()))[0]])
        targets.append((len(ids), {self.end: 1.0}))
        return [*ids, self.end], targets

    def padded(self, rows) -> torch.Tensor:
        length = max(len(ids) for ids, _ in rows)
        return torch.tensor([ids + [self.pad] * (length - len(ids)) for ids, _ in rows])

    def loss(self, model, rows) -> torch.Tensor:
        hidden = model.model(self.padded(rows), use_cache=False).last_hidden_state
        places = [(n, place - 1) for n, (_, targets) in enumerate(rows) for place, _ in targets]
        likely = [one for _, targets in rows for _, one in targets]
        wanted = torch.zeros(len(places), self.size)
        at = [(n, token) for n, one in enumerate(likely) for token in one]
        wanted[tuple(torch.tensor(at).T)] = torch.tensor([share for one in likely for share in one.values()])
        # What is judged counts more than the form around it, and ids, which RULER's schema holds a judge to, too.
        kinds = [(len(one) > 1, next(iter(one))) for one in likely]
        weight = torch.tensor(
            [1.0 if judged else 0.1 if token in self.ids else 0.05 for judged, token in kinds]
        )
        which, where = torch.tensor(places).T
        losses = F.cross_entropy(model.lm_head(hidden[which, where]), wanted, reduction="none")
        return (losses * weight).sum() / weight.sum()


class Lessons:
    """Rows to learn from, and sixty questions of RULER's and 200 short ones to look at."""

    def __init__(self, batches: Batches, system: str, asked: list[dict], options):
        self.batches, self.options = batches, options
        opened = [batches.token("<|system|>"), *batches.spell(system)]
        self.lists = [(batches.head(row["user"], opened), row) for row in asked]
        rng = random.Random(12345)
        self.looked_at = (
            [self.short(rng, 1.0) for _ in range(200)],
            [self.list(one, rng, 1.0) for one in self.lists[:60]],
        )
        self.next = 60

    def short(self, rng: random.Random, share: float):
        asked, answer = short(rng, share)
        return self.batches.row(self.batches.head(asked, []), answer, rng)

    def list(self, one, rng: random.Random, share: float):
        head, row = one
        return self.batches.row(head, listed(row, share), rng)

    def drawn(self, rng: random.Random, share: float):
        shorts = [self.short(rng, share) for _ in range(self.options.shorts)]
        begin, self.next = self.next, self.next + self.options.lists
        if self.next > len(self.lists):
            begin, self.next = 60, 60 + self.options.lists
        return shorts, [self.list(one, rng, share) for one in self.lists[begin : self.next]]


@torch.no_grad()
def looked_at(model, batches: Batches, lessons: Lessons) -> dict[str, float]:
    """How often the likeliest judgement is right, of RULER's form also the share of pairs in order, and of ids."""
    found: dict[str, list[float]] = {"score": [], "better": [], "ruler": [], "in_order": [], "ids": []}
    shorts, lists = lessons.looked_at
    for rows in (shorts, lists):
        logits = model(batches.padded(rows), use_cache=False).logits
        for (_, targets), of in zip(rows, logits, strict=True):
            judged = [(place, likely) for place, likely in targets if len(likely) > 1]
            right = [max(likely, key=likely.get) for _, likely in judged]
            said = [of[place - 1].argmax().item() for place, _ in judged]
            if rows is shorts:
                found["score" if len(judged[0][1]) == 5 else "better"].append(said == right)
                continue
            found["ruler"] += [a == b for a, b in zip(said, right, strict=True)]
            values = [batches.of[score] for score in SCORES]
            marks = [of[place - 1][values].argmax().item() for place, _ in judged]
            worth = [values.index(one) for one in right]
            found["in_order"] += [
                0.5 if marks[a] == marks[b] else float(marks[a] > marks[b])
                for a in range(len(worth))
                for b in range(len(worth))
                if worth[a] > worth[b]
            ]
            named = [(place, next(iter(one))) for place, one in targets if next(iter(one)) in batches.ids]
            found["ids"] += [of[place - 1].argmax().item() == token for place, token in named]
    return {name: round(sum(map(float, of)) / len(of), 2) for name, of in found.items()}


def learn(model, batches: Batches, lessons: Lessons, options) -> int:
    """A right judge alone until it is heard in each form: what a mixture says can hardly be learnt before that."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.peak, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(options.seed)
    began = time.time()
    done, left = 0, None
    while left != 0:
        rate = min(1.0, (done + 1) / 50) if left is None else 0.03 + 0.97 * left / options.doubting
        for group in optimizer.param_groups:
            group["lr"] = options.peak * rate
        share = 1.0 if left is None else options.right
        optimizer.zero_grad()
        # Apart: the short ones would be as long as the others.
        losses = [batches.loss(model, rows) for rows in lessons.drawn(rng, share)]
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        left = None if left is None else left - 1
        if done % 25:
            continue
        seen = looked_at(model, batches, lessons)
        shown = " ".join(f"{loss.item():.3f}" for loss in losses)
        print(f"{done} loss {shown} {seen} {time.time() - began:.0f} s", flush=True)
        heard = min(seen["score"], seen["better"], seen["ruler"]) >= options.heard
        if left is None and (heard or done >= options.sure):
            left = options.doubting
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorts", type=int, default=64)
    parser.add_argument("--lists", type=int, default=32)
    parser.add_argument("--peak", type=float, default=3e-3)
    parser.add_argument("--heard", type=float, default=0.95, help="share that is right before doubts begin")
    parser.add_argument("--sure", type=int, default=700, help="updates with the right judge alone, at most")
    parser.add_argument("--doubting", type=int, default=200, help="updates with the mixture")
    parser.add_argument("--right", type=float, default=0.25, help="share of the right judge in it")
    parser.add_argument(
        "--apart", action="store_true", help="RULER's marks and scores begin as any other token"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    options.folder.mkdir(parents=True, exist_ok=True)
    with options.corpus.open() as lines:
        first, *asked = map(json.loads, lines)
    built = new_tokenizer(first["system"])
    save(options.folder, built)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    batches = Batches(built)
    lessons = Lessons(batches, first["system"], asked, options)
    model = new_model(built, options)
    updates = learn(model, batches, lessons, options)
    model.eval().save_pretrained(options.folder)
    (options.folder / "model.safetensors").chmod(0o644)
    made = {
        "seconds": round(time.time() - began),
        "updates": updates,
        "parameters": sum(p.numel() for p in model.parameters()),
        "judges_rightly": looked_at(model, batches, lessons),
        **{
            name: value
            for name, value in vars(options).items()
            if name not in ("folder", "corpus", "updates")
        },
    }
    (options.folder / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made))
