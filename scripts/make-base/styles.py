"""Ways to play. A style is a distribution over the legal moves; the base learns all of them, RL chooses among them."""

from game import MOVES, Game, slide

CLOCKWISE = ("up", "right", "down", "left")
NOISE = 0.1  # share of moves that are random whatever the style

# Weights of the mix: mostly weak players, so that there is something left to learn.
WEIGHTS = {
    "random": 3,
    "clockwise": 2,
    "greedy": 2,
    "up-right first": 1,
    "down-left first": 1,
    "greedy in a corner": 1,
}


def first_of(order: tuple[str, ...], legal: list[str]) -> list[str]:
    return [next(move for move in order if move in legal)]


def most_points(game: Game, legal: list[str]) -> list[str]:
    points = {move: slide(game.board, game.size, move)[1] for move in legal}
    return [move for move in legal if points[move] == max(points.values())]


def choices(style: str, game: Game, last: str | None) -> list[str]:
    """The moves that the style holds for equally good here."""
    legal = game.legal()
    if style == "random":
        return legal
    if style == "clockwise":
        start = CLOCKWISE.index(last) + 1 if last else 0
        return first_of(CLOCKWISE[start:] + CLOCKWISE[:start], legal)
    if style == "greedy":
        return most_points(game, legal)
    if style == "up-right first":
        return first_of(("up", "right", "left", "down"), legal)
    if style == "down-left first":
        return first_of(("down", "left", "right", "up"), legal)
    if style == "greedy in a corner":
        return first_of(("down", "left", "right", "up"), most_points(game, legal))
    raise ValueError(f"no style {style!r}")


def distribution(style: str, game: Game, last: str | None) -> dict[str, float]:
    legal = game.legal()
    best = choices(style, game, last)
    return {
        m: NOISE / len(legal) + ((1 - NOISE) / len(best) if m in best else 0.0) for m in MOVES if m in legal
    }
