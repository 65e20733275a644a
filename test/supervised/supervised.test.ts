/** Imitation and preferences over HTTP on the shipped base, then reinforcement on the same adapter. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bestOfN, gather } from "@hone/client";
import type { DpoExample, SftExample, SupervisedEvent } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-supervised-"));
  server = await startTestServer();
}, 120_000);
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const colours = ["red", "blue", "green", "white", "black", "brown", "pink", "grey"];
const things = ["car", "house", "hat", "dog", "tree", "cup"];
const question = (colour: string, thing: string) => `The ${thing} is ${colour}. Which colour?`;
const examples: SftExample[] = colours.flatMap((colour) =>
  things.map((thing) => ({
    messages: [
      { role: "user", content: question(colour, thing) },
      { role: "assistant", content: `It is ${colour}.` },
    ],
  })),
);
const rate = { learningRate: 3e-3, warmupSteps: 0 };

it("examples lower the loss of those that are held out, and reinforcement goes on from there", async () => {
  const model = await server.hone.model({ name: "taught" });
  const events: SupervisedEvent[] = [];
  const path = join(folder, "examples.jsonl");
  writeFileSync(path, examples.map((example) => JSON.stringify(example)).join("\n"));
  const run = await model.sft(path, {
    ...rate,
    epochs: 2,
    batchSize: 8,
    validation: 0.2,
    schedule: { type: "linear" },
    onProgress: (event) => events.push(event),
  });
  const [first, last] = [run.validations[0]!, run.validations.at(-1)!];
  expect(last.loss).toBeLessThan(first.loss / 2);
  expect(last.perplexity).toBeCloseTo(Math.exp(last.loss), 6);
  expect(run).toMatchObject({ steps: 10, done: 10, step: 10, policy: "taught@10", dropped: [] });
  expect(run.validations.map(({ step }) => step)).toEqual([0, 5, 10]);
  expect(events.filter(({ type }) => type === "step")).toHaveLength(10);

  // The same program again: nothing is trained twice.
  const again = await model.sft(path, { ...rate, epochs: 2, batchSize: 8, validation: 0.2 });
  expect(again).toMatchObject({ steps: 10, done: 0, policy: "taught@10" });

  const scenarios = colours.map((colour) => ({ colour }));
  for await (const batch of model.batches(scenarios, { groupsPerStep: 4, steps: 1 })) {
    const groups = await gather(
      model,
      async (rollout, { colour }) => {
        const connection = rollout.connection();
        const answer = await new OpenAI(connection).chat.completions.create({
          model: connection.model,
          messages: [{ role: "user", content: question(colour, "boat") }],
          max_tokens: 24,
        });
        const said = answer.choices[0]?.message.content ?? "";
        return { reward: said.length % 7 };
      },
      batch.scenarios,
      { groupSize: 4 },
    );
    const result = await model.train(groups, { batch });
    expect(result).toMatchObject({ trained: true, step: 11 });
    expect(result.warnings).toEqual([]);
    // The best of its own rollouts: the very ids that were sampled, so the loss is their mean log probability.
    const best = bestOfN(groups);
    expect(best).toHaveLength(4);
    // Several steps: the first ones still go the way that the moments of before point.
    const own = await model.sft(best, { ...rate, epochs: 6, batchSize: 4, validation: best });
    expect(own).toMatchObject({ done: 6, step: 17, dropped: [] });
    expect(own.validations.at(-1)!.loss).toBeLessThan(own.validations[0]!.loss);
  }
  // The batches and both runs stand in one cursor.
  expect((await model.info()).cursor).toMatchObject({ step: 1, supervised: expect.any(Object) });
}, 300_000);

it("preferences raise the margin on pairs that are held out", async () => {
  const model = await server.hone.model({ name: "preferring" });
  const pairs: DpoExample[] = colours.flatMap((colour, at) =>
    things.map((thing) => ({
      prompt: [{ role: "user", content: question(colour, thing) }],
      chosen: [{ role: "assistant", content: `It is ${colour}.` }],
      rejected: [{ role: "assistant", content: `It is ${colours[(at + 3) % 8]}.` }],
    })),
  );
  const run = await model.dpo(pairs, {
    ...rate,
    beta: 0.5,
    batchSize: 8,
    validation: 0.2,
    epochs: 3,
  });
  const margins = run.validations.map(({ metrics }) => metrics["rewards/margins"] ?? 0);
  expect(margins[0]).toBeCloseTo(0, 5);
  expect(margins.at(-1)).toBeGreaterThan(0.1);
  expect(run.validations.at(-1)!.loss).toBeLessThan(run.validations[0]!.loss);
}, 300_000);
