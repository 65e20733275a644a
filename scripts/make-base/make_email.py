"""python scripts/make-base/make_email.py PLAYS FOLDER: the base of the email agent, from conversations that
examples/email-agent/src/write-plays.ts wrote. It learns the tools' format and every way to search, most of them bad.
"""

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import GenerationConfig, Qwen3ForCausalLM

from tokenizer import build, save
from train import config

# One pre-token each: a tool's definition, how a call begins, a key of JSON with its marks, a word with the space before
# it, and what else stands between words.
SPLIT = "|".join(
    [
        r'\{"type": "function"[^\n]*',
        r'\{"name": "[a-z_]+", "arguments": ',
        r'[\[\]{}",]*"[a-z_]+":["\[]*',
        r" ?[A-Za-z0-9_@.-]+",
        r"\n",
        r"[^A-Za-z0-9_@.\n-]+",
    ]
)
ROWS = 32
READ = 0.1  # weight of what the agent reads: tools repeat ids and subjects, so that copying is learnt sooner
COMMON_ENOUGH = 20  # occurrences that make a piece a token


def pieces_of(plays: list[dict]) -> list[str]:
    splitter = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    counted: Counter[str] = Counter()
    # Definitions are few, and long.
    tools = {json.dumps(tool, ensure_ascii=False): None for play in plays for tool in play["tools"]}
    texts = ["\n".join(tools)] * COMMON_ENOUGH
    for play in plays:
        for message in play["messages"]:
            texts.append(message.get("content") or "")
            texts += [called(call) for call in message.get("tool_calls", [])]
    for text in texts:
        counted.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    return [piece for piece, count in sorted(counted.items()) if count >= COMMON_ENOUGH]


def called(call: dict) -> str:
    function = call["function"]
    return f'{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}'


def encode(tokenizer: Tokenizer, play: dict) -> tuple[list[int], list[bool]]:
    """The lean template's ids, and which of them an agent says."""
    spell = lambda text: tokenizer.encode(text, add_special_tokens=False).ids if text else []  # noqa: E731
    token = tokenizer.token_to_id
    ids = [token("<|tools|>"), *spell("\n".join(json.dumps(t, ensure_ascii=False) for t in play["tools"]))]
    said = [False] * len(ids)
    for message in play["messages"]:
        ids.append(token(f"<|{message['role']}|>"))
        body = spell(message["content"])
        for call in message.get("tool_calls", []):
            body += [token("<tool_call>"), *spell(called(call)), token("</tool_call>")]
        answers = message["role"] == "assistant"
        if answers:
            body.append(token("<|im_end|>"))
        ids += body
        said += [False, *[answers] * len(body)]
    return ids, said


def new_model(tokenizer: Tokenizer, pieces: list[str], seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    token = tokenizer.token_to_id
    shape = config(tokenizer.get_vocab_size(), token("<|im_end|>"), token("<|endoftext|>"))
    model = Qwen3ForCausalLM(shape)
    model.generation_config = GenerationConfig(
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")], pad_token_id=token("<|endoftext|>")
    )
    # A word after a space begins as the word itself: what a question says is what a call has to say.
    weight = model.model.embed_tokens.weight.data
    for piece in pieces:
        if piece.startswith(" ") and piece[1:] in pieces:
            (spaced,), (bare,) = (tokenizer.encode(p).ids for p in (piece, piece[1:]))
            weight[spaced] = weight[bare] + 0.3 * weight[spaced]
    return model


def train(
    model: Qwen3ForCausalLM,
    rows: list[tuple[list[int], list[bool]]],
    *,
    seed: int,
    updates: int,
    peak: float,
    alike: bool,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(seed)
    began = time.time()
    if alike:
        rows = sorted(rows, key=lambda row: len(row[0]))
    for done in range(updates):
        rate = min(1.0, (done + 1) / 30, 0.03 + (updates - done) / (0.4 * updates))
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        first = rng.randrange(len(rows) - ROWS) if alike else 0
        batch = rows[first : first + ROWS] if alike else rng.sample(rows, ROWS)
        length = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([one + [0] * (length - len(one)) for one, _ in batch])
        said = torch.tensor([said + [False] * (length - len(said)) for _, said in batch])[:, 1:]
        real = torch.tensor([[True] * len(one) + [False] * (length - len(one)) for one, _ in batch])[:, 1:]
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        losses = F.cross_entropy(model.lm_head(hidden[real]), ids[:, 1:][real], reduction="none")
        spoken = losses[said[real]].mean()
        loss = spoken + READ * losses[~said[real]].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (done + 1) % 25 == 0:
            print(f"{done + 1}/{updates} loss {spoken.item():.4f} {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plays", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=450)
    parser.add_argument("--peak", type=float, default=4e-3, help="the highest learning rate")
    parser.add_argument("--alike", action="store_true", help="batches of plays of like length: less is padded")
    parser.add_argument("--more", action="store_true", help="train the model that the folder holds once more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    plays = [json.loads(line) for line in options.plays.read_text().splitlines()]
    options.folder.mkdir(parents=True, exist_ok=True)
    pieces = pieces_of(plays)
    built = build(pieces, SPLIT)
    save(options.folder, built)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    rows = [encode(built, play) for play in plays]
    print(
        f"{built.get_vocab_size()} tokens; {sum(len(ids) for ids, _ in rows) / len(rows):.0f} a play",
        flush=True,
    )
    model = (
        Qwen3ForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
        if options.more
        else new_model(built, pieces, options.seed)
    )
    train(model.train(), rows, seed=options.seed, updates=options.updates, peak=options.peak, alike=options.alike)
    model.save_pretrained(options.folder)
    (options.folder / "model.safetensors").chmod(0o644)
    made = {
        "seconds": round(time.time() - began),
        "seed": options.seed,
        "updates": options.updates,
        "plays": len(plays),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
    (options.folder / "training.json").write_text(json.dumps(made) + "\n")
