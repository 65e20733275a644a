import { expect, it } from "vitest";
import { Game } from "../../examples/2048/src/game.ts";
import { board, gameAt, downLeftFirst, positionKey, positions, valuesAt } from "./move-values.ts";

it("goes down, then left, and elsewhere only where it must", () => {
  const game = (cells: number[]): Game => Game.from(cells, { ...board, seed: 1 });
  expect(downLeftFirst(game([2, 0, 0, 0, 4, 0, 0, 0, 8]))).toBe("down");
  expect(downLeftFirst(game([0, 0, 0, 0, 0, 0, 0, 4, 0]))).toBe("left");
  expect(downLeftFirst(game([0, 0, 0, 0, 0, 0, 4, 2, 0]))).toBe("right");
});

it("values exactly the legal moves of positions that are met once", () => {
  const found = positions(6, 3, new Set());
  const others = positions(6, 3, new Set(found.map(positionKey)));
  expect(new Set([...found, ...others].map(positionKey)).size).toBe(12);
  for (const { board: cells, values, style } of found) {
    const legal = gameAt(cells).legal();
    expect(Object.keys(values)).toEqual(legal);
    expect(legal.length).toBeGreaterThan(1);
    expect(legal).toContain(style);
  }
  expect(positions(2, 3, new Set())).toEqual(found.slice(0, 2));
});

it("values a move by the points that are made from it on", () => {
  // Up or down wins at once, with 256 points; to the side merges the twos first, and then down wins with 260.
  expect(valuesAt([128, 0, 0, 128, 0, 0, 0, 2, 2], 4)).toEqual({
    up: 0.5,
    down: 0.5,
    left: 1,
    right: 1,
  });
});
