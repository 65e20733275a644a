// 2048 in single turns: a position, one answer, and a reward that says how well such a game goes on.
import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { fileURLToPath } from "node:url";
import { mulberry32, shuffledIndices } from "@hone/core";
import { firstTurn, readMove } from "../../examples/2048/src/prompt.ts";
import { gameAt, type Position } from "./move-values.ts";
import type { LearnTask } from "./task.ts";

export interface Positions {
  train: Position[];
  heldOut: Position[];
}

/** Positions to train on: those of the longest run that is planned, each used once. */
export const counts = { train: 640, heldOut: 512 };

const maxTokens = 8;

export function movesTask({ train, heldOut }: Positions): LearnTask<Position> {
  const scale = scaleOf(heldOut);
  return {
    name: "2048",
    base: fileURLToPath(new URL("../../models/hone-2048-1m", import.meta.url)),
    dtype: "float32",
    settings: {
      steps: 40,
      groupsPerStep: 16,
      groupSize: 8,
      learningRate: 2e-3,
      warmupSteps: 2,
      temperature: 1,
      maxTokens,
      judgeEvery: 4,
      trlRows: 128,
    },
    train: (seed) =>
      shuffledIndices(train.length, mulberry32(seed)).map((at) => train[at] as Position),
    heldOut,
    messages: (position) => [{ role: "user", content: promptOf(position) }],
    key: ({ values }) => ({ kind: "moves", values }),
    async rollout(model: RolloutModel, position: Position, temperature: number) {
      const connection = model.connection();
      const completion = await new OpenAI(connection).chat.completions.create(
        {
          model: connection.model,
          messages: [{ role: "user", content: promptOf(position) }],
          max_tokens: maxTokens,
          temperature,
        },
        { signal: model.signal },
      );
      return rewarded(completion.choices[0]?.message.content ?? "", position, scale);
    },
    judging: {
      metric: "score",
      label: "held-out positions: 0 = any legal move, 1 = always the most valuable one",
      temperature: 1,
      samples: 1,
    },
    references: [
      {
        name: "greedy in a corner",
        score: mean(heldOut.map((one) => scoreOf(one.values[one.style] ?? 0, one, scale))),
      },
    ],
  };
}

/** Rules, board and legal moves: the first turn of a game that begins here. */
export function promptOf(position: Position): string {
  return firstTurn(gameAt(position.board));
}

/** The value of the move; 0, as much as a lost game is worth, where the answer is no legal move. */
export function rewarded(answer: string, position: Position, scale: number) {
  const move = readMove(answer);
  const value = move === null ? undefined : position.values[move];
  const reward = value ?? 0;
  return {
    reward,
    metrics: {
      score: scoreOf(reward, position, scale),
      legal: value === undefined ? 0 : 1,
      best: value === Math.max(...Object.values(position.values)) ? 1 : 0,
    },
  };
}

/** Above what a legal move drawn at random is worth here, in units whose mean over all positions is at most 1. */
function scoreOf(value: number, { values }: Position, scale: number): number {
  return (value - mean(Object.values(values))) / scale;
}

/** How much better the best move is than any legal one, on average. */
export function scaleOf(positions: readonly Position[]): number {
  return mean(
    positions.map(({ values }) => Math.max(...Object.values(values)) - mean(Object.values(values))),
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
