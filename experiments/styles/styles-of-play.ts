// The ways to play 2048 that the base has seen (scripts/make-base/styles.py). Training selects among them, so they
// say what a policy has become, and about how far it can get.
import { Game, slide, uniforms, type Move } from "../../examples/2048/src/game.ts";

/** The moves that a style holds for equally good. `last` is the move before, null at the beginning. */
export type Style = (game: Game, last: Move | null) => Move[];

const styleNames = ["clockwise", "greedy", "up-right", "down-left", "corner"] as const;
export type StyleName = (typeof styleNames)[number];

const turning: readonly Move[] = ["up", "right", "down", "left"];

export const styles: Readonly<Record<StyleName, Style>> = {
  clockwise: (game, last) => {
    const start = last === null ? 0 : turning.indexOf(last) + 1;
    return firstOf([...turning.slice(start), ...turning.slice(0, start)], game.legal());
  },
  greedy: mostPoints,
  "up-right": (game) => firstOf(["up", "right", "left", "down"], game.legal()),
  "down-left": (game) => firstOf(["down", "left", "right", "up"], game.legal()),
  corner: (game) => firstOf(["down", "left", "right", "up"], mostPoints(game)),
};

function mostPoints(game: Game): Move[] {
  const points = game
    .legal()
    .map((move) => ({ move, points: slide(game.board, game.size, move).gained }));
  const most = Math.max(...points.map((one) => one.points));
  return points.filter((one) => one.points === most).map(({ move }) => move);
}

function firstOf(order: readonly Move[], among: readonly Move[]): Move[] {
  return order.filter((move) => among.includes(move)).slice(0, 1);
}

/** Plays a game to its end in one style; where it has no preference its own seeded luck decides. */
export function playInStyle(game: Game, style: Style, seed: number): Game {
  const random = uniforms(seed);
  let last: Move | null = null;
  while (!game.over) {
    const moves = style(game, last);
    const move = moves[Math.floor(random() * moves.length)] ?? null;
    game.play(move);
    last = move;
  }
  return game;
}

/** Counts how many of the moves of some games each style would choose too. */
export class StyleCount {
  readonly #agreed = new Map<StyleName, number>(styleNames.map((name) => [name, 0]));
  #moves = 0;
  #last: Move | null = null;

  /** To be called before each game. */
  begin(): void {
    this.#last = null;
  }

  /** To be called before the move is played. A move that is not legal counts for no style. */
  add(game: Game, move: Move): void {
    this.#moves += 1;
    for (const name of styleNames) {
      if (!styles[name](game, this.#last).includes(move)) continue;
      this.#agreed.set(name, (this.#agreed.get(name) ?? 0) + 1);
    }
    this.#last = move;
  }

  /** Style → share of the moves. */
  shares(): Record<StyleName, number> {
    const shares = [...this.#agreed].map(([name, count]) => [name, count / (this.#moves || 1)]);
    return Object.fromEntries(shares) as Record<StyleName, number>;
  }
}

/** The style with the highest mean score over the games of these seeds. */
export function bestStyle(
  board: { size: number; target: number },
  seeds: readonly number[],
): { name: StyleName; score: number } {
  const played = styleNames.map((name) => {
    const games = seeds.map((seed) =>
      playInStyle(new Game({ ...board, seed }), styles[name], seed),
    );
    return { name, score: games.reduce((sum, { score }) => sum + score, 0) / games.length };
  });
  return played.reduce((best, one) => (one.score > best.score ? one : best));
}
