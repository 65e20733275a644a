// 2048 in single turns: a position, one answer, and a reward that says how well such a game goes on.
import { fileURLToPath } from "node:url";
import type { RolloutModel } from "@hone/client";
import { mulberry32, shuffledIndices } from "@hone/core";
import OpenAI from "openai";
import { firstTurn, readMove } from "../../examples/2048/src/prompt.ts";
import { gameAt, type Position } from "./move-values.ts";
import type { LearnTask, Settings } from "./task.ts";

export interface Positions {
  train: Position[];
  heldOut: Position[];
}

/** Those to train on suffice for 40 steps without a repetition. */
export const counts = { train: 640, heldOut: 512 };

const settings: Settings = {
  steps: 24,
  groupsPerStep: 16,
  groupSize: 8,
  learningRate: 2e-3,
  warmupSteps: 2,
  scaleRewards: "none",
  temperature: 1,
  maxTokens: 8,
  judgeEvery: 2,
  trlRows: 128,
};

export function movesTask({ train, heldOut }: Positions): LearnTask<Position> {
  const scale = scaleOf(heldOut);
  return {
    name: "2048",
    base: fileURLToPath(new URL("../../models/hone-2048-1m", import.meta.url)),
    dtype: "float32",
    settings,
    train: (seed) =>
      shuffledIndices(train.length, mulberry32(seed)).map((at) => train[at] as Position),
    heldOut,
    messages,
    key: ({ values }) => ({ kind: "moves", values }),
    async rollout(model, position) {
      const { temperature, maxTokens } = settings;
      const choice = await ask(model, position, { temperature, max_tokens: maxTokens });
      return { reward: rewardOf(choice?.message.content ?? "", position) };
    },
    judging: {
      /** By the probabilities of the answers, so that no luck of sampling is in the score. */
      async rollout(model, position) {
        const choice = await ask(model, position, {
          temperature: 1,
          max_tokens: 1,
          logprobs: true,
          top_logprobs: 8,
        });
        const most = Math.max(...Object.values(position.values));
        let reward = 0;
        let legal = 0;
        let best = 0;
        for (const { token, logprob } of choice?.logprobs?.content?.[0]?.top_logprobs ?? []) {
          const move = readMove(token);
          const value = valueOf(move, position);
          const probability = Math.exp(logprob);
          reward += probability * value;
          if (move !== null && move in position.values) legal += probability;
          if (value === most) best += probability;
        }
        return { reward, metrics: { score: scoreOf(reward, position, scale), legal, best } };
      },
      metric: "score",
      label: "held-out positions; 0: any legal move, 1: always the most valuable one",
    },
    references: [
      {
        name: "down-left first",
        score: mean(heldOut.map((one) => scoreOf(valueOf(one.style, one), one, scale))),
      },
    ],
  };
}

/** Rules, board and legal moves: the first turn of a game that begins here. */
function messages({ board }: Position) {
  return [{ role: "user" as const, content: firstTurn(gameAt(board)) }];
}

async function ask(
  model: RolloutModel,
  position: Position,
  how: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>,
) {
  const connection = model.connection();
  const completion = await new OpenAI(connection).chat.completions.create(
    { ...how, model: connection.model, messages: messages(position) },
    { signal: model.signal },
  );
  return completion.choices[0];
}

export function rewardOf(answer: string, position: Position): number {
  return valueOf(readMove(answer), position);
}

/** 0 where the answer is no legal move. */
function valueOf(move: ReturnType<typeof readMove>, { values }: Position): number {
  return (move === null ? undefined : values[move]) ?? 0;
}

/** How far above a legal move drawn at random, in units of what the best moves are above it on average. */
function scoreOf(value: number, { values }: Position, scale: number): number {
  return (value - mean(Object.values(values))) / scale;
}

function scaleOf(positions: readonly Position[]): number {
  return mean(
    positions.map(({ values }) => Math.max(...Object.values(values)) - mean(Object.values(values))),
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
