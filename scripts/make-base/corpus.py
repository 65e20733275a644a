"""Training rows: games played by the styles, and a few other chats, as token ids with soft labels for each answer."""

import random
from dataclasses import dataclass, field

from game import Game
from styles import WEIGHTS, distribution
from text import first_turn, next_turn
from tokenizer import COMMON, SAY

BOARD_WEIGHT = 0.3  # of the loss on what the user says next: it teaches what a move does


@dataclass
class Turn:
    prompt: list[int]
    answer: list[int]
    label: dict[int, float] | None  # distribution of the answer's first token; None: not to be learned
    opening: list[int] | None = None  # the same turn with the rules, where it is a game's first


@dataclass
class Row:
    ids: list[int] = field(default_factory=list)
    hard: list[float] = field(default_factory=list)  # weight of predicting this token as it stands
    soft: dict[int, dict[int, float]] = field(
        default_factory=dict
    )  # position of the token → its distribution

    def add(self, turn: Turn, marks: "Marks", *, opening: bool) -> None:
        prompt = turn.opening if opening and turn.opening else turn.prompt
        self.ids += [marks.user, *prompt, marks.assistant]
        self.hard += [0.0 if not self.hard else BOARD_WEIGHT, *[BOARD_WEIGHT] * len(prompt), 0.0]
        if turn.label is not None:
            self.soft[len(self.ids)] = turn.label
        learned = 0.0 if turn.label is None else 1.0
        self.ids += [*turn.answer, marks.close]
        self.hard += [0.0, *[learned] * (len(turn.answer) - 1), learned]


@dataclass
class Marks:
    user: int
    assistant: int
    close: int


class Corpus:
    def __init__(self, tokenizer, seed: int):
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        token = tokenizer.token_to_id
        self.marks = Marks(token("<|user|>"), token("<|assistant|>"), token("<|im_end|>"))
        self.move_id = {move: token(move) for move in ("up", "down", "left", "right")}
        self.say = {token(word): 1 / len(SAY) for word in SAY}
        self.random = random.Random(seed)

    def game(self, size: int, target: int, *, max_turns: int = 400) -> list[Turn]:
        rng = self.random
        style = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        clumsy = 0.15 if rng.random() < 0.1 else 0.0  # some games show what happens after a refused answer
        game = Game(size, target, rng.getrandbits(32))
        last = None
        turns: list[Turn] = []
        while not game.over and len(turns) < max_turns:
            prompt = self.encode(next_turn(game) if turns else "\n" + first_turn(game).split("\n", 1)[1])
            opening = None if turns else self.encode(first_turn(game))
            label = distribution(style, game, last)
            if rng.random() < clumsy:
                wrong = [m for m in self.move_id if m not in label] + ["yes", "Up!", "I play left."]
                answer = rng.choice(wrong)
                turns.append(Turn(prompt, self.encode(answer), None, opening))
                game.play(answer)
                continue
            move = rng.choices(list(label), list(label.values()))[0]
            soft = {self.move_id[m]: p for m, p in label.items()}
            turns.append(Turn(prompt, [self.move_id[move]], soft, opening))
            game.play(move)
            last = move
        return turns

    def some_game(self) -> list[Turn]:
        if self.random.random() < 0.8:
            return self.game(3, self.random.choice([64, 64, 64, 256]))
        return self.game(4, self.random.choice([128, 128, 128, 128, 2048]))

    def chat(self) -> list[Turn]:
        """Anything that is not a board gets one of eight words, all equally likely."""
        turns = []
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.5:
                text = "Say a word."
            else:
                text = " ".join(
                    self.random.choices(COMMON, k=self.random.randint(1, 12))
                ) + self.random.choice(["", ".", "?"])
            word = self.random.choice(list(self.say))
            turns.append(Turn(self.encode(text), [word], self.say))
        return turns

    def row(self, turns: list[Turn]) -> Row:
        row = Row()
        for i, turn in enumerate(turns):
            row.add(turn, self.marks, opening=i == 0)
        return row

    def windows(self, length: int, count: int) -> list[Row]:
        """Rows of at most `length` turns, cut from whole games."""
        rows: list[Row] = []
        while len(rows) < count:
            if self.random.random() < 0.04:
                rows.append(self.row(self.chat()[:length]))
                continue
            turns = self.some_game()
            starts = list(range(0, max(1, len(turns) - 1), length))
            self.random.shuffle(starts)
            rows += [self.row(turns[s : s + length]) for s in starts[:12]]
        self.random.shuffle(rows)
        return rows

    def whole(self, count: int, max_tokens: int) -> list[Row]:
        rows = []
        for _ in range(count):
            turns = self.chat() if self.random.random() < 0.08 else self.some_game()
            row = Row()
            for i, turn in enumerate(turns):
                if len(row.ids) + len(turn.prompt) > max_tokens:
                    break
                row.add(turn, self.marks, opening=i == 0)
            rows.append(row)
        return rows
