import { moves } from "./game.ts";
import type { Game, Move } from "./game.ts";

// The base was trained on exactly this text (scripts/make-base/FORMAT.md); another model reads it too.

export function firstTurn(game: Game): string {
  return `${rules(game.size, game.target)}\n${boardText(game)}`;
}

/** The board alone, with a note where the last answer was refused. */
export function nextTurn(game: Game): string {
  return game.refused > 0 ? `Not a legal move.\n${boardText(game)}` : boardText(game);
}

/** Null where the answer is not one of the four words. */
export function readMove(answer: string): Move | null {
  const word = answer.trim().toLowerCase();
  return moves.find((move) => move === word) ?? null;
}

function rules(size: number, target: number): string {
  return (
    `You play 2048 on a ${size}x${size} board. Reach ${target}. ` +
    "Row a is the top row, column 1 the left column, a dot an empty cell. " +
    "Answer with one word: up, down, left or right."
  );
}

function boardText(game: Game): string {
  const rows = Array.from({ length: game.size }, (_, row) =>
    game.board
      .slice(row * game.size, (row + 1) * game.size)
      .map((tile, column) => `${rowName(row)}${column + 1}=${tile === 0 ? "." : tile}`)
      .join(" "),
  );
  return `${rows.join("\n")}\nlegal: ${game.legal().join(" ")}`;
}

function rowName(row: number): string {
  return String.fromCodePoint(97 + row);
}
