import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import {
  heldOutNames,
  heldOutTemplates,
  takeTurns,
  trainNames,
  trainTemplates,
  writeMails,
  type Mail,
} from "./bills.ts";
import { scoreAnswer } from "./reward.ts";

// What train.ts needs of a task: two lists of scenarios, a rollout that ends in a reward, and, for its
// tables, what decides and how to slice.

// The templates take turns, so that every step has mails of every kind: a step of one kind would teach the
// shortcut that fits it. That order is kept, not shuffled.
export const train = takeTurns(
  trainTemplates.map((template, number) => writeMails([template], trainNames, 20, number)),
);
export const shuffle = false;
export const heldOut = writeMails(heldOutTemplates, heldOutNames, 12, 2);
export const metric = "exact";
export const slice = (mail: Mail): string => mail.template;

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
export async function rollout(model: RolloutModel, { text, bill }: Mail, temperature: number) {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const messages = [{ role: "system" as const, content: system }, ...example];
  const completion = await client.chat.completions.create(
    {
      model: connection.model,
      messages: [...messages, { role: "user", content: text }],
      max_tokens: 48,
      temperature,
    },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  return { ...scoreAnswer(answer, bill), logs: [answer] };
}
// #endregion
