// The games of a run's folder, played again move by move: what each style would have chosen there.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readGroups } from "@hone/client";
import type { Trajectory } from "@hone/client";
import { Game } from "../../examples/2048/src/game.ts";
import { readMove } from "../../examples/2048/src/prompt.ts";
import { bestStyle, StyleCount, type StyleName } from "./styles-of-play.ts";

export interface PlayedEvaluation {
  label: string;
  games: number;
  score: number;
  /** Share of the moves that a style would choose too. */
  shares: Record<StyleName, number>;
}

type Board = { size: number; target: number };

/** The held-out games of each evaluation. */
export async function evaluationsOf(run: string): Promise<PlayedEvaluation[]> {
  const board = await boardOf(run);
  const files = (await readdir(join(run, "trajectories"))).filter((name) =>
    name.startsWith("eval-"),
  );
  return await Promise.all(
    files.toSorted().map(async (file) => {
      const games = await gamesIn(run, file);
      const count = new StyleCount();
      for (const game of games) replay(game, board, count);
      const score = games.reduce((sum, { metrics }) => sum + (metrics["score"] ?? 0), 0);
      const label = file.replace(/^eval-|\.jsonl$/g, "");
      return { label, games: games.length, score: score / games.length, shares: count.shares() };
    }),
  );
}

/** What the best single style reaches on the games that the base was judged by: about what there is to reach. */
export async function ceilingOf(run: string): Promise<{ name: StyleName; score: number }> {
  const seeds = (await gamesIn(run, "eval-base.jsonl")).map(seedOf);
  return bestStyle(await boardOf(run), seeds);
}

/** Counts the moves of a game that was played, and gives the game as it ended. */
export function replay(played: Trajectory, board: Board, count: StyleCount): Game {
  const game = new Game({ ...board, seed: seedOf(played) });
  count.begin();
  for (const { role, content } of played.messages) {
    if (role !== "assistant") continue;
    const move = readMove(typeof content === "string" ? content : "");
    if (move !== null) count.add(game, move);
    game.play(move);
  }
  return game;
}

async function gamesIn(run: string, file: string): Promise<Trajectory[]> {
  const groups = await readGroups(join(run, "trajectories", file));
  return groups.flatMap(({ trajectories }) => trajectories);
}

async function boardOf(run: string): Promise<Board> {
  const settings = JSON.parse(await readFile(join(run, "settings.json"), "utf8"));
  return { size: settings.size, target: settings.target };
}

function seedOf({ metadata }: Trajectory): number {
  return Number(metadata["seed"]);
}
