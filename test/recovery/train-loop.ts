// A user's program, run as a process that a test can kill: a loop over batches. Says on standard output where it is.
import { gather, Hone } from "@hone/client";
import OpenAI from "openai";

/** Where it waits to be killed: `played 1`. */
const waitsAt = process.env["HONE_TEST_WAITS_AT"];

async function say(at: string, step: number): Promise<void> {
  console.log(JSON.stringify({ at, step }));
  if (waitsAt === `${at} ${step}`) await new Promise(() => setInterval(() => undefined, 1_000));
}
const scenarios = Array.from({ length: 50 }, (_, seed) => ({ seed }));

const model = await new Hone().model({ name: "loop", lora: { r: 4, alpha: 8 } });
for await (const batch of model.batches(scenarios, { groupsPerStep: 2, steps: 4 })) {
  await say("batch", batch.step);
  const groups = await gather(
    model,
    async (rolloutModel, { seed }) => {
      const connection = rolloutModel.connection();
      const client = new OpenAI(connection);
      await client.chat.completions.create({
        model: connection.model,
        messages: [{ role: "user", content: `Say the number ${seed}.` }],
        max_tokens: 32,
      });
      await say("played", batch.step);
      return { reward: Math.random() };
    },
    batch.scenarios,
    { groupSize: 3, concurrency: 2 },
  );
  const handle = model.startTrain(groups, { batch, maxTokensPerMicroBatch: 64 });
  for await (const { type } of handle) await say(type, batch.step);
  if (!(await handle.result).trained) throw new Error("a step trained nothing");
}
await say("done", -1);
