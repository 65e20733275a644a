import { expect, it } from "vitest";
import { Game } from "../../examples/2048/src/game.ts";
import { board, gameAt, greedyInACorner, positionKey, positions, valuesAt } from "./move-values.ts";

it("makes most points, and where moves are equal goes down, then left", () => {
  const game = (cells: number[]): Game => Game.from(cells, { ...board, seed: 1 });
  // Only a move to the side merges.
  expect(greedyInACorner(game([0, 0, 0, 2, 2, 0, 0, 4, 0]))).toBe("left");
  expect(greedyInACorner(game([2, 0, 0, 0, 4, 0, 0, 0, 8]))).toBe("down");
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
  // To the side wins at once with 256 points; down or up merges the twos first, and wins with 260.
  const log = (points: number): number => Math.round(Math.log(points + 1) * 10_000) / 10_000;
  expect(valuesAt([128, 128, 0, 0, 0, 2, 0, 0, 2], 4)).toEqual({
    up: log(260),
    down: log(260),
    left: log(256),
    right: log(256),
  });
});
