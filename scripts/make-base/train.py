"""Supervised training of the base. Deterministic for one torch version and one thread; stages are counted in updates."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from corpus import Corpus, Row
from tokenizer import VALUES, before

PEAK = 3e-3
# A jump from short windows to whole games does not recover: the style is found in ever longer contexts.
STAGES = (  # (name, turns a row or None = whole games, rows a batch, updates)
    ("two turns", 2, 32, 500),
    ("six turns", 6, 11, 400),
    ("twenty turns", 20, 4, 450),
    ("whole games", None, 3, 500),
)
COOLING = 300  # updates at the end over which the learning rate falls to a twentieth
LONGEST = 2200  # tokens of a whole game; longer ones are cut
LONG_GAME = 7000  # but one batch in sixteen is one long game on 4x4, to the end of what the positions hold


def config(vocab_size: int, end: int, pad: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        rope_theta=1_000_000.0,
        initializer_range=0.05,
        eos_token_id=end,
        pad_token_id=pad,
        bos_token_id=None,
        use_cache=True,
    )


def new_model(tokenizer, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    token = tokenizer.token_to_id
    model = Qwen3ForCausalLM(config(tokenizer.get_vocab_size(), token("<|im_end|>"), token("<|endoftext|>")))
    model.generation_config = GenerationConfig(
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")], pad_token_id=token("<|endoftext|>")
    )
    compose_embeddings(model, tokenizer)
    return model


def compose_embeddings(model: Qwen3ForCausalLM, tokenizer) -> None:
    """A cell's token begins as cell + value, so that what is learned of one value holds in every cell."""
    weight = model.model.embed_tokens.weight.data
    part = lambda: torch.randn(weight.shape[1]) * 0.05  # noqa: E731
    value = {v: part() for v in VALUES}
    spell = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    for row in "abcd":
        for column in "1234":
            cell = part()
            for v in VALUES:
                for space in before(row + column):
                    (token_id,) = spell(f"{space}{row}{column}={v}")
                    weight[token_id] = cell + value[v]
    for move in ("up", "down", "left", "right"):
        shared = part()
        for text in (move, f" {move}"):
            (token_id,) = spell(text)
            weight[token_id] = shared + 0.5 * part()


def loss_of(model: Qwen3ForCausalLM, rows: list[Row], pad: int) -> tuple[torch.Tensor, float]:
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    hard = torch.zeros(len(rows), length)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        hard[i, : len(row.ids)] = torch.tensor(row.hard)
    # Rows are padded on the right and attention is causal, so no mask is needed.
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = hard[:, 1:] > 0
    logits = model.lm_head(hidden[wanted])
    weights = hard[:, 1:][wanted]
    hard_loss = (F.cross_entropy(logits, ids[:, 1:][wanted], reduction="none") * weights).sum()

    where = [(i, p - 1, label) for i, row in enumerate(rows) for p, label in row.soft.items()]
    at = torch.tensor([(i, p) for i, p, _ in where])
    target = torch.zeros(len(where), logits.shape[1])
    for k, (_, _, label) in enumerate(where):
        target[k, list(label)] = torch.tensor(list(label.values()))
    logp = model.lm_head(hidden[at[:, 0], at[:, 1]]).log_softmax(-1)
    soft_loss = -(target * logp).sum()
    floor = -(target * target.clamp_min(1e-9).log()).sum()
    return (hard_loss + soft_loss) / len(where), ((soft_loss - floor) / len(where)).item()


def batches(corpus: Corpus, turns: int | None, rows: int, updates: int):
    """Rows of one length together, so that little is padding."""
    made = 0
    while made < updates:
        if turns is None:
            pool = sorted(corpus.whole(rows * 16, LONGEST), key=lambda row: len(row.ids))
        else:
            pool = sorted(corpus.windows(turns, rows * 8), key=lambda row: len(row.ids))
        groups = [pool[i : i + rows] for i in range(0, len(pool) - rows + 1, rows)]
        if turns is None:
            groups = [group[: max(1, 2 * LONGEST // len(group[-1].ids))] for group in groups]
            groups[0] = [corpus.row(corpus.game(4, 2048, max_turns=LONG_GAME // 25))]
        corpus.random.shuffle(groups)
        for group in groups[: updates - made]:
            made += 1
            yield group


def train(tokenizer, folder: Path, *, seed: int = 0, scale: float = 1.0, log=print) -> Qwen3ForCausalLM:
    torch.set_num_threads(1)
    corpus = Corpus(tokenizer, seed)
    model = new_model(tokenizer, seed).train()
    decay = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in n)]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98))
    pad = tokenizer.token_to_id("<|endoftext|>")
    total = sum(int(updates * scale) for *_, updates in STAGES)
    done, start = 0, time.time()
    for name, turns, rows, updates in STAGES:
        excess = 0.0
        for seen, batch in enumerate(batches(corpus, turns, rows, int(updates * scale)), start=1):
            rate = min(1.0, (done + 1) / 50, 0.05 + 0.95 * (total - done) / (COOLING * scale))
            for group in optimizer.param_groups:
                group["lr"] = PEAK * rate
            loss, above = loss_of(model, batch, pad)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1
            excess += above
            if seen % 50 == 0:
                log(
                    f"{name} {done}/{total} loss {loss.item():.3f} KL {excess / 50:.4f} {time.time() - start:.0f} s"
                )
                excess = 0.0
        model.save_pretrained(folder)
    return model.eval()
