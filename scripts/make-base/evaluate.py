"""What a base can do, measured in whole conversations at temperature 1."""

import statistics
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from game import MOVES, Game
from styles import WEIGHTS, choices
from text import first_turn, next_turn, read_move
from tokenizer import SAY

LONGEST_ANSWER = 4


class Conversations:
    """Many conversations that advance together. Rows differ in length: each turn is padded, and the padding masked."""

    def __init__(self, model, rows: int, pad: int, generator: torch.Generator):
        self.model, self.pad, self.generator = model, pad, generator
        self.cache = DynamicCache(config=model.config)
        self.mask = torch.zeros(rows, 0, dtype=torch.long)
        self.length = torch.zeros(rows, dtype=torch.long)

    @torch.no_grad()
    def feed(self, pieces: list[list[int]]) -> torch.Tensor:
        """Append one piece to each row (it may be empty); the logits after each row's last token."""
        width = max(1, *(len(piece) for piece in pieces))
        ids = torch.full((len(pieces), width), self.pad)
        new = torch.zeros(len(pieces), width, dtype=torch.long)
        for i, piece in enumerate(pieces):
            ids[i, : len(piece)] = torch.tensor(piece, dtype=torch.long)
            new[i, : len(piece)] = 1
        positions = self.length[:, None] + torch.arange(width)
        self.mask = torch.cat([self.mask, new], 1)
        self.length = self.length + new.sum(1)
        hidden = self.model.model(
            ids,
            attention_mask=self.mask,
            position_ids=positions.clamp(max=self.model.config.max_position_embeddings - 1),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        last = (new.sum(1) - 1).clamp(min=0)
        return self.model.lm_head(hidden[torch.arange(len(pieces)), last])

    def answer(self, pieces: list[list[int]], close: int) -> list[list[int]]:
        """One sampled answer a row, closed; rows with an empty piece stay as they are."""
        live = [bool(piece) for piece in pieces]
        out: list[list[int]] = [[] for _ in pieces]
        for _ in range(LONGEST_ANSWER):
            probabilities = self.feed(pieces).softmax(-1)
            sampled = torch.multinomial(probabilities, 1, generator=self.generator)[:, 0].tolist()
            pieces = [[token] if on else [] for token, on in zip(sampled, live, strict=True)]
            for i, piece in enumerate(pieces):
                out[i] += piece
                live[i] = bool(piece) and piece[0] != close
            if not any(live):
                break
        # What was sampled last is not in the cache yet; an answer that was cut off gets its close too.
        tail = [piece if not piece or piece[0] == close else [*piece, close] for piece in pieces]
        self.feed(tail)
        return out


@dataclass
class Report:
    games: int
    well_formed: float
    legal: float
    score: float
    score_error: float
    reached: float
    moves: float
    styles: dict[str, float]

    def line(self) -> str:
        return (
            f"well formed {self.well_formed:.1%}, legal {self.legal:.1%}, "
            f"score {self.score:.0f} ± {self.score_error:.0f}, reached {self.reached:.0%}, moves {self.moves:.0f}"
        )


def play(model, tokenizer, *, size: int, target: int, games: int, seed: int, longest: int = 7900) -> Report:
    token = tokenizer.token_to_id
    user, assistant, close = token("<|user|>"), token("<|assistant|>"), token("<|im_end|>")
    boards = [Game(size, target, seed + i) for i in range(games)]
    talk = Conversations(model, games, token("<|endoftext|>"), torch.Generator().manual_seed(seed))
    last: list[str | None] = [None] * games
    formed = legal = asked = 0
    agreement = {style: [0, 0] for style in WEIGHTS if style != "random"}
    first = True
    while not all(game.over for game in boards) and talk.length.max() < longest:
        pieces = []
        for game in boards:
            text = first_turn(game) if first else next_turn(game)
            pieces.append([] if game.over else [user, *tokenizer.encode(text).ids, assistant])
        first = False
        for i, answer in enumerate(talk.answer(pieces, close)):
            game = boards[i]
            if game.over:
                continue
            asked += 1
            move = read_move(tokenizer.decode(answer)) if answer[-1] == close else None
            formed += move is not None
            held = {style: choices(style, game, last[i]) for style in agreement}
            if not game.play(move or ""):
                continue
            legal += 1
            for style, moves in held.items():
                if len(moves) < len(MOVES):
                    agreement[style][0] += move in moves
                    agreement[style][1] += 1
            last[i] = move
    scores = [game.score for game in boards]
    return Report(
        games=games,
        well_formed=formed / asked,
        legal=legal / asked,
        score=statistics.mean(scores),
        score_error=1.96 * statistics.stdev(scores) / games**0.5,
        reached=sum(game.best >= target for game in boards) / games,
        moves=statistics.mean(game.moves for game in boards),
        styles={style: hit / max(1, of) for style, (hit, of) in agreement.items()},
    )


def said(model, tokenizer, *, count: int, seed: int, prompt: str = "Say a word.") -> dict[str, float]:
    """How often each answer to a plain question comes."""
    token = tokenizer.token_to_id
    talk = Conversations(model, count, token("<|endoftext|>"), torch.Generator().manual_seed(seed))
    close = token("<|im_end|>")
    piece = [token("<|user|>"), *tokenizer.encode(prompt).ids, token("<|assistant|>")]
    words = [tokenizer.decode(answer) for answer in talk.answer([piece] * count, close)]
    return {word: words.count(word) / count for word in [*SAY, *sorted(set(words) - set(SAY))]}
