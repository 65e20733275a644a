import { describe, expect, it } from "vitest";
import { Game, type Move } from "../../examples/2048/src/game.ts";
import { readMove } from "../../examples/2048/src/prompt.ts";
import type { Trajectory } from "@hone/client";
import { replay } from "./played-games.ts";
import { bestStyle, playInStyle, StyleCount, styles } from "./styles-of-play.ts";

const options = { size: 3, target: 64, seed: 1 };
// Down merges the 4s (8 points), left and right the 2s (4 points); up merges the 4s too.
const board = [4, 2, 2, 4, 8, 16, 0, 0, 0];
const game = () => Game.from(board, options);

describe("the styles", () => {
  it("choose among the legal moves as they are named", () => {
    expect(game().legal()).toEqual(["up", "down", "left", "right"]);
    expect(styles.greedy(game(), null)).toEqual(["up", "down"]);
    expect(styles.corner(game(), null)).toEqual(["down"]);
    expect(styles["down-left"](game(), null)).toEqual(["down"]);
    expect(styles["up-right"](game(), null)).toEqual(["up"]);
  });

  it("turn clockwise from the move before, past what is not legal", () => {
    expect(styles.clockwise(game(), null)).toEqual(["up"]);
    expect(styles.clockwise(game(), "up")).toEqual(["right"]);
    expect(styles.clockwise(game(), "left")).toEqual(["up"]);
    // Everything lies at the top and the left: right and down are what can be played.
    const stuck = Game.from([2, 0, 0, 0, 0, 0, 0, 0, 0], options);
    expect(styles.clockwise(stuck, "left")).toEqual(["right"]);
    expect(styles["down-left"](stuck, null)).toEqual(["down"]);
  });

  it("play a whole game, the same for the same seed", () => {
    const once = playInStyle(new Game(options), styles.greedy, 5);
    expect(once.over).toBe(true);
    expect(once.refusedInAll).toBe(0);
    expect(playInStyle(new Game(options), styles.greedy, 5).score).toBe(once.score);
  });

  it("differ in what they reach: a corner is better than a circle", () => {
    const seeds = Array.from({ length: 200 }, (_, i) => i + 1);
    const best = bestStyle({ size: 3, target: 64 }, seeds);
    expect(["up-right", "down-left", "corner"]).toContain(best.name);
    const scores = seeds.map(
      (seed) => playInStyle(new Game({ ...options, seed }), styles.clockwise, seed).score,
    );
    const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
    expect(best.score).toBeGreaterThan(1.2 * mean);
  });
});

describe("the count of styles", () => {
  it("says which share of the moves a style would choose too", () => {
    const count = new StyleCount();
    const played: Move[] = ["down", "up"];
    for (const move of played) count.add(game(), move);
    expect(count.shares()).toEqual({
      // After "down" it would turn left, not up.
      clockwise: 0,
      greedy: 1,
      "up-right": 0.5,
      "down-left": 0.5,
      corner: 0.5,
    });
    expect(new StyleCount().shares().greedy).toBe(0);
  });
});

it("counts the games of a run as they were played", () => {
  const played = new Game(options);
  const answers = ["left", "no move", "up", "right"];
  const messages = answers.flatMap((content) => [
    { role: "user" as const, content: "" },
    { role: "assistant" as const, content },
  ]);
  for (const answer of answers) played.play(readMove(answer));
  const trajectory = { messages, metadata: { seed: options.seed } } as unknown as Trajectory;
  const count = new StyleCount();
  for (const _ of [1, 2]) expect(replay(trajectory, options, count).board).toEqual(played.board);
  // Of the three legal moves of each game, "up" alone comes first for those who keep to the upper right.
  expect(count.shares()["up-right"]).toBeCloseTo(1 / 3);
});
