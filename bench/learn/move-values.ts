// What each move of a 2048 position is worth: the game is played on from there many times, by a strong style.
// Luck is shared: the n-th continuation of every move has the same spawns.
import { Game, slide, uniforms, type Move } from "../../examples/2048/src/game.ts";

export const board = { size: 3, target: 256 } as const;

/** Continuations whose mean is a move's value. */
const continuations = 64;

export interface Position {
  board: number[];
  /** Of each legal move: the mean of log(points made from here on + 1). */
  values: Partial<Record<Move, number>>;
  /** What the strong style itself would play. */
  style: Move;
}

/** The most points now; among equals the tiles go to the lower left corner. The best style of the base's mix. */
export function greedyInACorner(game: Game): Move {
  const legal = game.legal();
  const points = legal.map((move) => slide(game.board, game.size, move).gained);
  const most = Math.max(...points);
  const best = legal.filter((_, index) => points[index] === most);
  return firstOf(["down", "left", "right", "up"], best);
}

/** Positions met in games of mixed quality, a handful of each game, none of them twice, with their values. */
export function positions(count: number, seed: number, taken: ReadonlySet<string>): Position[] {
  const random = uniforms(seed);
  const seen = new Set(taken);
  const found: Position[] = [];
  while (found.length < count) {
    // From careful to careless, so that good and bad positions are met.
    const careless = random();
    const game = new Game({ ...board, seed: Math.floor(random() * 2 ** 31) });
    while (!game.over && found.length < count) {
      const legal = game.legal();
      const key = game.board.join(" ");
      // One legal move leaves nothing to choose; one position in eight, so that neighbours are rare.
      if (legal.length > 1 && random() < 1 / 8 && !seen.has(key)) {
        seen.add(key);
        const cells = [...game.board];
        const values = valuesAt(cells, Math.floor(random() * 2 ** 31));
        found.push({ board: cells, values, style: greedyInACorner(game) });
      }
      const anyOf = legal[Math.floor(random() * legal.length)] ?? null;
      game.play(random() < careless ? anyOf : greedyInACorner(game));
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

/** Of each legal move. Luck is that of `seed` and those after it, the same for all moves. */
export function valuesAt(cells: readonly number[], seed: number): Position["values"] {
  return Object.fromEntries(
    gameAt(cells)
      .legal()
      .map((move) => {
        let sum = 0;
        for (let turn = 0; turn < continuations; turn++) {
          sum += Math.log(pointsFrom(cells, move, seed + turn) + 1);
        }
        // Four digits are more than so few continuations give, and both sides read the same.
        return [move, Math.round((sum / continuations) * 10_000) / 10_000];
      }),
  );
}

function pointsFrom(cells: readonly number[], first: Move, seed: number): number {
  const game = gameAt(cells, seed);
  game.play(first);
  while (!game.over) game.play(greedyInACorner(game));
  return game.score;
}

function firstOf(order: readonly Move[], among: readonly Move[]): Move {
  const move = order.find((one) => among.includes(one));
  if (move === undefined) throw new Error("A game that goes on has a legal move.");
  return move;
}
