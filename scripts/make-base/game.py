"""2048 as its inventors play it, on a square board of any size. FORMAT.md says the rules and the random numbers."""

from collections.abc import Iterator
from functools import lru_cache

MOVES = ("up", "down", "left", "right")
MASK = 0xFFFFFFFF


def uniforms(seed: int) -> Iterator[float]:
    """mulberry32: short enough to be the same, bit for bit, in Python and in TypeScript."""
    state = seed & MASK
    while True:
        state = (state + 0x6D2B79F5) & MASK
        mixed = state
        mixed = ((mixed ^ (mixed >> 15)) * (mixed | 1)) & MASK
        mixed ^= (mixed + (((mixed ^ (mixed >> 7)) * (mixed | 61)) & MASK)) & MASK
        yield (mixed ^ (mixed >> 14)) / 4294967296


@lru_cache(maxsize=1 << 16)
def slide_line(line: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Slide one line towards its first cell. Each tile merges once, those nearest the wall first."""
    tiles = [tile for tile in line if tile]
    out: list[int] = []
    gained = 0
    i = 0
    while i < len(tiles):
        if i + 1 < len(tiles) and tiles[i] == tiles[i + 1]:
            out.append(2 * tiles[i])
            gained += 2 * tiles[i]
            i += 2
        else:
            out.append(tiles[i])
            i += 1
    return tuple(out) + (0,) * (len(line) - len(out)), gained


def slide(board: tuple[int, ...], size: int, move: str) -> tuple[tuple[int, ...], int]:
    """The board after a move (row by row, 0 = empty), before the spawn, and the points that the move makes."""
    cells = list(board)
    gained = 0
    for k in range(size):
        if move in ("left", "right"):
            index = [k * size + j for j in range(size)]
        else:
            index = [j * size + k for j in range(size)]
        if move in ("right", "down"):
            index.reverse()
        line, points = slide_line(tuple(board[i] for i in index))
        gained += points
        for i, tile in zip(index, line, strict=True):
            cells[i] = tile
    return tuple(cells), gained


class Game:
    def __init__(self, size: int, target: int, seed: int):
        self.size = size
        self.target = target
        self.random = uniforms(seed)
        self.board: tuple[int, ...] = (0,) * (size * size)
        self.score = 0
        self.moves = 0
        self.refused = 0  # answers in a row that were not a legal move
        self.spawn()
        self.spawn()

    def spawn(self) -> None:
        where, what = next(self.random), next(self.random)
        empty = [i for i, tile in enumerate(self.board) if not tile]
        cells = list(self.board)
        cells[empty[int(where * len(empty))]] = 2 if what < 0.9 else 4
        self.board = tuple(cells)

    def legal(self) -> list[str]:
        return [move for move in MOVES if slide(self.board, self.size, move)[0] != self.board]

    @property
    def best(self) -> int:
        return max(self.board)

    @property
    def over(self) -> bool:
        return self.best >= self.target or self.refused >= 10 or not self.legal()

    def play(self, move: str) -> bool:
        """Play a move; False, and the board unchanged, where it is not a legal one."""
        if move not in MOVES:
            self.refused += 1
            return False
        board, gained = slide(self.board, self.size, move)
        if board == self.board:
            self.refused += 1
            return False
        self.refused = 0
        self.board = board
        self.score += gained
        self.moves += 1
        self.spawn()
        return True
