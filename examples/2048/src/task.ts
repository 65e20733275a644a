import type { RolloutModel } from "@hone/client";
import { defineTask, type RolloutHow } from "@hone/client/run";
import OpenAI from "openai";
import { Game } from "./game.ts";
import { firstTurn, nextTurn, readMove } from "./prompt.ts";

// An agent that learns to play 2048. `npm run quickstart` serves the base and trains it on this task.

/** Games of one seed have the same luck: the members of a group differ by how they play. */
interface Scenario {
  seed: number;
}
type Settings = { size: number; target: number };

const games = (count: number, first: number): Scenario[] =>
  Array.from({ length: count }, (_, i) => ({ seed: first + i }));

// #region rollout
/** One whole game, played as one conversation. */
async function rollout(model: RolloutModel, { seed }: Scenario, how: RolloutHow<Settings>) {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const game = new Game({ ...how.settings, seed });
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "user", content: firstTurn(game) },
  ];
  const fits = roomFor(how);
  let malformed = 0;
  let used = 0;
  while (!game.over && fits(used)) {
    const completion = await client.chat.completions.create(
      {
        model: connection.model,
        messages,
        // Models that think before they answer refuse `max_tokens`; Hone's own server takes both.
        max_completion_tokens: how.answerTokens,
        temperature: how.temperature,
      },
      { signal: model.signal },
    );
    const message = completion.choices[0]?.message;
    if (!message) throw new Error("The completion has no choice.");
    used = completion.usage?.total_tokens ?? 0;

    const move = readMove(message.content ?? "");
    if (move === null) malformed += 1;
    game.play(move);
    messages.push(message, { role: "user", content: nextTurn(game) });
  }
  const { score, moves, best, refusedInAll: refused } = game;
  const [won, cut] = [game.won ? 1 : 0, game.over ? 0 : 1];
  return {
    reward: Math.log(score + 1),
    metrics: { score, moves, best, won, refused, malformed, cut },
    metadata: { seed },
  };
}
// #endregion

/** Whether another turn fits into the context, with its answer and room for the note of a refused one. */
function roomFor({ contextTokens, answerTokens }: RolloutHow<Settings>) {
  let before = 0;
  let longestTurn = 0;
  return (used: number): boolean => {
    // The first turn holds the rules too.
    if (before > 0) longestTurn = Math.max(longestTurn, used - before);
    before = used;
    return contextTokens === null || used + 2 * longestTurn + answerTokens <= contextTokens;
  };
}

export default defineTask({
  train: games(100_000, 1),
  heldOut: games(256, 1_000_000),
  rollout,
  metric: "score",
  settings: { size: 3, target: 64 },
  checkSettings({ size, target }) {
    if (!Number.isInteger(size) || size < 2 || size > 26) {
      throw new Error(`--size is the number of cells of a side, 2 to 26, not ${size}.`);
    }
    if (!Number.isInteger(Math.log2(target)) || target < 8) {
      throw new Error(`--target is a tile that wins: 8, 16, 32, … and so on, not ${target}.`);
    }
  },
  options: {
    ...{ steps: 10, groupsPerStep: 8, groupSize: 8, concurrency: 64 },
    // An answer is a word and an end; a model that rambles is cut off and refused.
    answerTokens: 8,
    // What suits a base of a million parameters. Adam's steps are as large on noise as on a signal: at a constant
    // rate the late ones only wander.
    learningRate: 2e-3,
    schedule: { type: "linear", end: 0.1 },
    train: {
      ...{ warmupSteps: 2, optimizerSteps: 2, epsilonLow: 0.2, epsilonHigh: 0.28 },
      scaleRewards: "group",
      // About what a game samples, so that the loss is a mean over tokens in size.
      normalizerTokens: 64,
    },
    // The likeliest move is not a way to play.
    ...{ verdict: "sampled", evalEvery: 5, evalHeldOut: 64 },
  },
  // Held-out games that reach the target, beside their score.
  curves: () => ({ heldOut: ["won"] }),
});
