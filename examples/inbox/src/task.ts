import type { RolloutModel } from "@hone/client";
import { defineTask, type RolloutHow } from "@hone/client/run";
import OpenAI from "openai";
import { composeMails, heldOutNames, heldOutTemplates, writeMails, type Mail } from "./bills.ts";
import { scoreAnswer } from "./reward.ts";

// A real model that learns to read bills out of mails: `npm run quickstart -- inbox` serves it and trains it.

// Every step has mails of every order: a step of one order would teach the shortcut that fits it. So they are not
// shuffled.
export const train = composeMails(960, 1);
export const heldOut = writeMails(heldOutTemplates, heldOutNames, 12, 2);

export const system = "Read the bill in the mail. Answer with one JSON object and nothing else.";
// Its facts stand the other way round than the model likes to read them, last ones first.
export const example = [
  {
    role: "user",
    content: "You owe 41.30 by 9 June. The 17.55 of 28 May are paid. Ivory Pharmacy",
  },
  { role: "assistant", content: '{"name": "Ivory Pharmacy", "amount": 41.30, "due": "9 June"}' },
] as const;

// #region rollout
export async function rollout(
  model: RolloutModel,
  { text, bill }: Mail,
  { temperature, answerTokens }: Pick<RolloutHow, "temperature" | "answerTokens">,
) {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const messages = [{ role: "system" as const, content: system }, ...example];
  const completion = await client.chat.completions.create(
    {
      model: connection.model,
      messages: [...messages, { role: "user", content: text }],
      max_tokens: answerTokens,
      temperature,
    },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  return { ...scoreAnswer(answer, bill), logs: [answer] };
}
// #endregion

export default defineTask({
  ...{ train, heldOut, rollout, shuffle: false },
  // All three values right.
  metric: "exact",
  slice: ({ order }) => order,
  options: {
    // Two mails a step of each combination of wanted first and wanted last.
    ...{ steps: 24, groupsPerStep: 8, groupSize: 6, concurrency: 64 },
    ...{ temperature: 0.7, answerTokens: 48 },
    // Adam's steps are as large on noise as on a signal: at a constant rate the late ones only wander.
    ...{ learningRate: 4e-4, schedule: { type: "linear", end: 0.1 } },
    // 32: about the tokens of an answer. 2048: what a small machine has memory for.
    train: { warmupSteps: 3, normalizerTokens: 32, maxTokensPerMicroBatch: 2048 },
  },
});
