import { type RolloutModel, splitScenarios } from "@hone/client";
import OpenAI from "openai";

// A task that the base of the repository learns in seconds, as a user of examples/inbox would write it.

const prompts = Array.from({ length: 40 }, (_, number) => `Say a word. ${number}`);

export const { train, heldOut } = splitScenarios(prompts, { heldOut: 16 });
export const metric = "yes";
export const slice = (prompt: string) => (prompt.length > 13 ? "two digits" : "one digit");

export async function rollout(model: RolloutModel, content: string, temperature: number) {
  const connection = model.connection();
  const completion = await new OpenAI(connection).chat.completions.create(
    {
      model: connection.model,
      messages: [{ role: "user", content }],
      max_tokens: 4,
      temperature,
    },
    { signal: model.signal },
  );
  const yes = completion.choices[0]?.message.content === "yes" ? 1 : 0;
  return { reward: yes, metrics: { yes } };
}
