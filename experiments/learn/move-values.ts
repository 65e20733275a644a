// What each move of a 2048 position is worth: the game is played on from there many times, by a strong style.
// Luck is shared: the n-th continuation of every move has the same spawns.
import { Game, uniforms, type Move } from "../../examples/2048/src/game.ts";

export const board = { size: 3, target: 256 } as const;

/** Continuations whose mean is a move's value. */
const continuations = 64;

export interface Position {
  board: number[];
  /** Of each legal move: 0.5 of the worst, 1 of the best, and between them as the points from here on are. */
  values: Partial<Record<Move, number>>;
  /** What the strong style itself would play. */
  style: Move;
}

/** Keeps the tiles in the lower left corner: one of the best styles of the base's mix. */
export function downLeftFirst(game: Game): Move {
  const legal = game.legal();
  const move = (["down", "left", "right", "up"] as const).find((one) => legal.includes(one));
  if (move === undefined) throw new Error("A game that goes on has a legal move.");
  return move;
}

/** Positions met in games of that style, a handful of each game, none of them twice, with their values. */
export function positions(count: number, seed: number, taken: ReadonlySet<string>): Position[] {
  const random = uniforms(seed);
  const seen = new Set(taken);
  const found: Position[] = [];
  while (found.length < count) {
    // Some moves at random, so that games of the same luck differ; more of them and no order would be left to keep.
    const careless = 0.1 * random();
    const game = new Game({ ...board, seed: Math.floor(random() * 2 ** 31) });
    while (!game.over && found.length < count) {
      const legal = game.legal();
      const key = game.board.join(" ");
      // One legal move leaves nothing to choose; one position in eight, so that neighbours are rare.
      if (legal.length > 1 && random() < 1 / 8 && !seen.has(key)) {
        seen.add(key);
        const cells = [...game.board];
        const values = valuesAt(cells, Math.floor(random() * 2 ** 31));
        found.push({ board: cells, values, style: downLeftFirst(game) });
      }
      const anyOf = legal[Math.floor(random() * legal.length)] ?? null;
      game.play(random() < careless ? anyOf : downLeftFirst(game));
    }
  }
  return found;
}

export function positionKey(position: Position): string {
  return position.board.join(" ");
}

/** The game at a position; its luck is that of the seed. */
export function gameAt(cells: readonly number[], seed = 1): Game {
  return Game.from(cells, { ...board, seed });
}

/** Between the worst and the best legal move, of the mean of log(points + 1); luck is the same for all moves. */
export function valuesAt(cells: readonly number[], seed: number): Position["values"] {
  const means = gameAt(cells)
    .legal()
    .map((move) => {
      let sum = 0;
      for (let turn = 0; turn < continuations; turn++) {
        sum += Math.log(pointsFrom(cells, move, seed + turn) + 1);
      }
      return { move, mean: sum / continuations };
    });
  const worst = Math.min(...means.map(({ mean }) => mean));
  const range = Math.max(...means.map(({ mean }) => mean)) - worst;
  return Object.fromEntries(
    means.map(({ move, mean }) => {
      const share = range === 0 ? 1 : (mean - worst) / range;
      // Four digits are more than so few continuations give, and both sides read the same.
      return [move, Math.round(5000 + 5000 * share) / 10_000];
    }),
  );
}

function pointsFrom(cells: readonly number[], first: Move, seed: number): number {
  const game = gameAt(cells, seed);
  game.play(first);
  while (!game.over) game.play(downLeftFirst(game));
  return game.score;
}
