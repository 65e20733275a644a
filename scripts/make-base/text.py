"""The words that the player reads and writes. FORMAT.md is the specification; the TypeScript game writes the same."""

from game import MOVES, Game

NOTE = "Not a legal move.\n"


def rules(size: int, target: int) -> str:
    return (
        f"You play 2048 on a {size}x{size} board. Reach {target}. "
        "Row a is the top row, column 1 the left column, a dot an empty cell. "
        "Answer with one word: up, down, left or right.\n"
    )


def board_text(game: Game) -> str:
    rows = []
    for r in range(game.size):
        cells = game.board[r * game.size : (r + 1) * game.size]
        rows.append(" ".join(f"{chr(97 + r)}{c + 1}={tile or '.'}" for c, tile in enumerate(cells)))
    return "\n".join(rows) + "\nlegal: " + " ".join(game.legal())


def first_turn(game: Game) -> str:
    return rules(game.size, game.target) + board_text(game)


def next_turn(game: Game) -> str:
    return (NOTE if game.refused else "") + board_text(game)


def read_move(answer: str) -> str | None:
    word = answer.strip().lower()
    return word if word in MOVES else None
