/** 2048 as its inventors play it, on a square board of any size. */

export const moves = ["up", "down", "left", "right"] as const;
export type Move = (typeof moves)[number];

export interface GameOptions {
  /** Cells of a side, 2 to 26. */
  size: number;
  /** The game is won at a tile of this value. */
  target: number;
  /** Of the spawns: games of one seed have the same luck, whatever is played. */
  seed: number;
}

/** Answers in a row that move nothing, after which the game is over. */
const mostRefused = 10;

export class Game {
  readonly size: number;
  readonly target: number;
  /** Row by row, 0 where it is empty. */
  board: readonly number[];
  /** The sum of the tiles that merges made. */
  score = 0;
  moves = 0;
  /** Answers in a row that were no legal move. */
  refused = 0;
  /** All of them. */
  refusedInAll = 0;
  readonly #random: () => number;
  /** Asked for several times a turn; a board is never changed in place. */
  #legal: { board: readonly number[]; moves: readonly Move[] } | null = null;

  constructor({ size, target, seed }: GameOptions) {
    this.size = size;
    this.target = target;
    this.#random = uniforms(seed);
    this.board = Array.from({ length: size * size }, () => 0);
    this.#spawn();
    this.#spawn();
  }

  /** A game that goes on from a position. */
  static from(board: readonly number[], options: GameOptions): Game {
    const game = new Game(options);
    game.board = board;
    return game;
  }

  get best(): number {
    return Math.max(...this.board);
  }

  get won(): boolean {
    return this.best >= this.target;
  }

  /** A full board with merges left is not over. */
  get over(): boolean {
    return this.won || this.refused >= mostRefused || this.legal().length === 0;
  }

  /** The moves that change something, always in the same order. */
  legal(): readonly Move[] {
    if (this.#legal?.board !== this.board) {
      const { board, size } = this;
      this.#legal = { board, moves: moves.filter((move) => slide(board, size, move).changed) };
    }
    return this.#legal.moves;
  }

  /** Plays a move. Where it is none or changes nothing the board stays, and no luck is used up. */
  play(move: Move | null): boolean {
    const after = move === null ? null : slide(this.board, this.size, move);
    if (!after?.changed) {
      this.refused += 1;
      this.refusedInAll += 1;
      return false;
    }
    this.refused = 0;
    this.board = after.board;
    this.score += after.gained;
    this.moves += 1;
    this.#spawn();
    return true;
  }

  /** Two uniforms a tile: which empty cell, and whether it is a 2 or a 4. */
  #spawn(): void {
    const where = this.#random();
    const what = this.#random();
    const empty = this.board.flatMap((tile, cell) => (tile === 0 ? [cell] : []));
    const cell = empty[Math.floor(where * empty.length)];
    this.board = this.board.map((tile, index) => (index === cell ? (what < 0.9 ? 2 : 4) : tile));
  }
}

/** The board after a move and before the spawn, and the points that the move makes. */
export function slide(
  board: readonly number[],
  size: number,
  move: Move,
): { board: number[]; gained: number; changed: boolean } {
  const after = [...board];
  let gained = 0;
  for (let line = 0; line < size; line += 1) {
    const cells = Array.from({ length: size }, (_, place) =>
      move === "left" || move === "right" ? line * size + place : place * size + line,
    );
    // From the wall on that the tiles slide to.
    if (move === "right" || move === "down") cells.reverse();
    const slid = slideLine(cells.map((cell) => board[cell] ?? 0));
    gained += slid.gained;
    for (const [place, cell] of cells.entries()) after[cell] = slid.tiles[place] ?? 0;
  }
  return { board: after, gained, changed: after.some((tile, cell) => tile !== board[cell]) };
}

/** Slides a line to its first cell. Each tile merges once, those nearest the wall first. */
function slideLine(line: readonly number[]): { tiles: number[]; gained: number } {
  const tiles: number[] = [];
  let gained = 0;
  let mergeable = false;
  for (const tile of line) {
    if (tile === 0) continue;
    if (mergeable && tiles.at(-1) === tile) {
      tiles[tiles.length - 1] = 2 * tile;
      gained += 2 * tile;
      mergeable = false;
    } else {
      tiles.push(tile);
      mergeable = true;
    }
  }
  return { tiles, gained };
}

/** mulberry32: short enough to be the same, bit for bit, in the Python that made the base. */
export function uniforms(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
