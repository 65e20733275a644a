import { array, assert, constantFrom, integer, nat, property } from "fast-check";
import { expect, it } from "vitest";
import { Game, moves, slide, uniforms, type Move } from "./game.ts";
import { firstTurn, nextTurn, readMove } from "./prompt.ts";
import task from "./task.ts";

const options = { size: 3, target: 64, seed: 1 };
const anyMoves = array(constantFrom(...moves), { maxLength: 60 });

it.each([
  [3, 64, 1, 80, 20, [4, 8, 2, 2, 4, 16, 4, 2, 8]],
  [4, 128, 7, 1136, 106, [0, 0, 2, 64, 0, 16, 2, 8, 2, 4, 2, 128, 2, 4, 16, 4]],
])("plays the game of the format, %dx to %d", (size, target, seed, score, count, board) => {
  const game = new Game({ size, target, seed });
  while (!game.over) {
    // Always the first legal move, except that moves number 1, 4, 7, … take the last legal one.
    const legal = game.legal();
    game.play((game.moves % 3 === 0 ? legal.at(-1) : legal[0]) ?? null);
  }
  expect([game.score, game.moves, game.board]).toEqual([score, count, board]);
});

it.each<[number[], Move, number[], number]>([
  [[2, 2, 2], "left", [4, 2, 0], 4],
  [[2, 2, 2], "right", [0, 2, 4], 4],
  [[2, 2, 4], "left", [4, 4, 0], 4],
  [[4, 0, 4], "right", [0, 0, 8], 8],
])("slides %j %s", (row, move, after, gained) => {
  const slid = slide([...row, 0, 0, 0, 0, 0, 0], 3, move);
  expect([slid.board.slice(0, 3), slid.gained]).toEqual([after, gained]);
});

it("never makes or loses value by a move", () => {
  const boards = integer({ min: 2, max: 6 }).chain((size) =>
    array(constantFrom(0, 2, 4, 8, 16), { minLength: size * size, maxLength: size * size }),
  );
  const sum = (tiles: number[]) => tiles.reduce((total, tile) => total + tile, 0);
  const kept = property(boards, constantFrom(...moves), (board, move) => {
    const { board: after, changed } = slide(board, Math.sqrt(board.length), move);
    expect([sum(after), changed]).toEqual([sum(board), after.join() !== board.join()]);
  });
  expect(() => assert(kept)).not.toThrow();
});

it("gives the games of a seed the same luck, whatever is played and refused", () => {
  const sameLuck = property(nat(), anyMoves, (seed, played) => {
    const game = new Game({ size: 4, target: 2048, seed });
    const random = uniforms(seed);
    for (let i = 0; i < 4; i += 1) random();
    for (const move of played) {
      const slid = slide(game.board, 4, move).board;
      if (game.over || !game.play(move)) continue;
      // The nth spawn is the same share of the empty cells and the same tile in every game of the seed.
      const empty = slid.flatMap((tile, cell) => (tile ? [] : [cell]));
      const cell = empty[Math.floor(random() * empty.length)] ?? -1;
      expect(game.board).toEqual(slid.with(cell, random() < 0.9 ? 2 : 4));
    }
  });
  expect(() => assert(sameLuck)).not.toThrow();
});

it("does not take what changes nothing for a move, and ends after ten in a row", () => {
  const board = [2, 0, 0, 4, 0, 0, 8, 0, 0];
  const game = Game.from(board, options);
  expect(game.legal()).toEqual(["right"]);
  for (let i = 0; i < 9; i += 1) expect(game.play("left")).toBe(false);
  expect([game.board, game.over, game.refused, game.moves]).toEqual([board, false, 9, 0]);
  expect(game.play("right")).toBe(true);
  expect([game.refused, game.refusedInAll, game.moves]).toEqual([0, 9, 1]);
  for (let i = 0; i < 10; i += 1) game.play(null);
  expect(game.over).toBe(true);
});

it.each([
  ["has merges left", [2, 2, 4, 8, 16, 32, 4, 8, 16], false],
  ["has no move left", [2, 4, 2, 8, 16, 32, 4, 8, 16], true],
  ["holds the target", [64, 0, 0, 0, 0, 0, 0, 0, 0], true],
])("where the board %s, the game's end is %s", (_what, board, over) => {
  expect(Game.from(board, options).over).toBe(over);
});

it("is told in the text that the base was trained on", () => {
  const game = new Game(options);
  const board = "a1=. a2=. a3=.\nb1=. b2=4 b3=2\nc1=. c2=. c3=.\nlegal: up down left";
  expect(firstTurn(game)).toBe(
    `You play 2048 on a 3x3 board. Reach 64. Row a is the top row, column 1 the left column, a dot an empty cell. Answer with one word: up, down, left or right.\n${board}`,
  );
  game.play("right");
  expect(nextTurn(game)).toBe(`Not a legal move.\n${board}`);
  game.play("left");
  const after = "a1=. a2=. a3=.\nb1=4 b2=2 b3=.\nc1=. c2=. c3=2\nlegal: up down left right";
  expect(nextTurn(game)).toBe(after);
});

it("reads a move with white space and capitals, and nothing else", () => {
  const read = [" Left\n", "up", "left.", "go up", ""].map(readMove);
  expect(read).toEqual(["left", "up", null, null, null]);
});

it.each([{ size: 1 }, { size: 27 }, { size: 2.5 }, { target: 4 }, { target: 96 }, { target: -8 }])(
  "refuses a board of %j",
  (given) => {
    const [name] = Object.keys(given);
    const check = () => task.checkSettings?.({ size: 3, target: 64, ...given });
    expect(check).toThrow(`--${name} is`);
  },
);
