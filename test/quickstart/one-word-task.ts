import { splitScenarios } from "@hone/client";
import { defineTask } from "@hone/client/run";
import OpenAI from "openai";

// A task that the base of the repository learns in seconds, as a user would write it.

/** What is drawn is the same in every run of the tests, in a probe as well, which gives no seeds. */
let drawn = 0;

const prompts = Array.from({ length: 40 }, (_, number) => `Say a word. ${number}`);

export default defineTask({
  ...splitScenarios(prompts, { heldOut: 16 }),
  metric: "yes",
  slice: (prompt) => (prompt.length > 13 ? "two digits" : "one digit"),
  async rollout(model, content, { temperature, seed }) {
    const connection = model.connection();
    const completion = await new OpenAI(connection).chat.completions.create(
      {
        model: connection.model,
        messages: [{ role: "user", content }],
        max_tokens: 4,
        temperature,
        seed: seed ?? (drawn += 1),
      },
      { signal: model.signal },
    );
    const yes = completion.choices[0]?.message.content === "yes" ? 1 : 0;
    return { reward: yes, metrics: { yes } };
  },
  // So many rollouts that the word which earns something is among them in nearly every step.
  options: {
    ...{ steps: 10, groupsPerStep: 4, groupSize: 16, concurrency: 64 },
    ...{ learningRate: 5e-3, schedule: { type: "linear" } },
    train: { warmupSteps: 3, normalizerTokens: 2, maxTokensPerMicroBatch: 2048 },
  },
});
