import { array, assert, constantFrom, integer, nat, property } from "fast-check";
import { describe, expect, it } from "vitest";
import { Game, moves, slide, uniforms } from "./game.ts";
import type { Move } from "./game.ts";
import { firstTurn, nextTurn, readMove } from "./prompt.ts";

const anyMove = constantFrom(...moves);
const options = { size: 3, target: 64, seed: 1 };

/** Always the first legal move, except that moves number 1, 4, 7, … take the last legal one. */
function playVector(size: number, target: number, seed: number): Game {
  const game = new Game({ size, target, seed });
  while (!game.over) {
    const legal = game.legal();
    game.play((game.moves % 3 === 0 ? legal.at(-1) : legal[0]) ?? null);
  }
  return game;
}

describe("the game", () => {
  it("draws the uniforms of the format", () => {
    const random = uniforms(1);
    expect([random(), random(), random(), random()]).toEqual([
      0.6270739405881613, 0.002735721180215478, 0.5274470399599522, 0.9810509674716741,
    ]);
  });

  it("plays the games of the format", () => {
    const small = playVector(3, 64, 1);
    expect([small.score, small.moves]).toEqual([80, 20]);
    expect(small.board).toEqual([4, 8, 2, 2, 4, 16, 4, 2, 8]);
    const large = playVector(4, 128, 7);
    expect([large.score, large.moves]).toEqual([1136, 106]);
    expect(large.board).toEqual([0, 0, 2, 64, 0, 16, 2, 8, 2, 4, 2, 128, 2, 4, 16, 4]);
  });

  it.each([
    [[2, 2, 2], "left", [4, 2, 0], 4],
    [[2, 2, 2], "right", [0, 2, 4], 4],
    [[2, 2, 4], "left", [4, 4, 0], 4],
    [[4, 0, 4], "right", [0, 0, 8], 8],
  ] as [number[], Move, number[], number][])("slides %j %s", (row, move, after, gained) => {
    const board = [...row, 0, 0, 0, 0, 0, 0];
    expect(slide(board, 3, move).board.slice(0, 3)).toEqual(after);
    expect(slide(board, 3, move).gained).toBe(gained);
  });

  it("gives the games of a seed the same luck, whatever is played and refused", () => {
    const sameLuck = property(
      nat(),
      array(anyMove, { maxLength: 60 }),
      array(anyMove, { maxLength: 60 }),
      (seed, one, other) => {
        // The nth spawn is the same share of the empty cells and the same tile in both games.
        const spawns = (played: Move[]) => {
          const game = new Game({ size: 4, target: 2048, seed });
          const random = uniforms(seed);
          for (let i = 0; i < 4; i += 1) random();
          for (const move of played) {
            const slid = slide(game.board, 4, move);
            if (game.over || !game.play(move)) continue;
            const empty = slid.board.flatMap((tile, cell) => (tile ? [] : [cell]));
            const cell = empty[Math.floor(random() * empty.length)] as number;
            expect(game.board[cell]).toBe(random() < 0.9 ? 2 : 4);
            expect(game.board.filter((tile, at) => at !== cell && tile !== slid.board[at])).toEqual(
              [],
            );
          }
          return game.moves;
        };
        spawns(one);
        spawns(other);
      },
    );
    expect(() => assert(sameLuck)).not.toThrow();
  });

  it("never makes or loses value by a move", () => {
    const kept = property(
      integer({ min: 2, max: 6 }).chain((size) =>
        array(constantFrom(0, 2, 4, 8, 16), { minLength: size * size, maxLength: size * size }),
      ),
      anyMove,
      (board, move) => {
        const size = Math.sqrt(board.length);
        const { board: after, changed } = slide(board, size, move);
        const sum = (tiles: number[]) => tiles.reduce((total, tile) => total + tile, 0);
        expect(sum(after)).toBe(sum(board));
        expect(changed).toBe(after.join() !== board.join());
      },
    );
    expect(() => assert(kept)).not.toThrow();
  });

  it("does not take what changes nothing for a move, and ends after ten in a row", () => {
    const game = Game.from([2, 0, 0, 4, 0, 0, 8, 0, 0], options);
    expect(game.legal()).toEqual(["right"]);
    for (let i = 0; i < 9; i += 1) expect(game.play("left")).toBe(false);
    expect(game.board).toEqual([2, 0, 0, 4, 0, 0, 8, 0, 0]);
    expect([game.over, game.refused, game.moves]).toEqual([false, 9, 0]);
    expect(game.play("right")).toBe(true);
    expect([game.refused, game.refusedInAll, game.moves]).toEqual([0, 9, 1]);
    for (let i = 0; i < 10; i += 1) game.play(null);
    expect(game.over).toBe(true);
  });

  it("goes on with a full board that has merges left", () => {
    const full = [2, 2, 4, 8, 16, 32, 4, 8, 16];
    expect(Game.from(full, options).over).toBe(false);
    expect(Game.from([2, 4, 2, 8, 16, 32, 4, 8, 16], options).over).toBe(true);
  });

  it("is won at the target", () => {
    expect(Game.from([64, 0, 0, 0, 0, 0, 0, 0, 0], options).over).toBe(true);
  });
});

describe("the conversation", () => {
  it("is the text that the base was trained on", () => {
    const game = new Game(options);
    expect(firstTurn(game))
      .toBe(`You play 2048 on a 3x3 board. Reach 64. Row a is the top row, column 1 the left column, a dot an empty cell. Answer with one word: up, down, left or right.
a1=. a2=. a3=.
b1=. b2=4 b3=2
c1=. c2=. c3=.
legal: up down left`);
    game.play("right");
    expect(nextTurn(game)).toBe(`Not a legal move.
a1=. a2=. a3=.
b1=. b2=4 b3=2
c1=. c2=. c3=.
legal: up down left`);
    game.play("left");
    expect(nextTurn(game)).toBe(`a1=. a2=. a3=.
b1=4 b2=2 b3=.
c1=. c2=. c3=2
legal: up down left right`);
  });

  it("reads a move with white space and capitals, and nothing else", () => {
    expect([" Left\n", "up", "left.", "go up", ""].map(readMove)).toEqual([
      "left",
      "up",
      null,
      null,
      null,
    ]);
  });
});
