// Steps over HTTP with objectives that are not the default, one of them the operator's own.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gather, type TrainOptions } from "@hone/client";
import type { TrajectoryGroup } from "@hone/core";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import * as guide from "../../examples/readme/src/objectives-guide.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const example = fileURLToPath(
  new URL("../../examples/objectives/best_of_group.py", import.meta.url),
);
let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(undefined, { objectives: [example] });
});
afterAll(() => server?.close());

/** Two groups of four rollouts of two turns, whose rewards differ. */
async function play(name: string): Promise<TrajectoryGroup[]> {
  const model = await server.hone.model({ name, lora: { r: 4, alpha: 8 } });
  let count = 0;
  return await gather(
    model,
    async (rolloutModel, { seed }) => {
      const connection = rolloutModel.connection();
      const client = new OpenAI(connection);
      const messages: OpenAI.ChatCompletionMessageParam[] = [
        { role: "user", content: `Say the number ${seed}.` },
      ];
      for (let turn = 0; turn < 2; turn++) {
        const answer = await client.chat.completions.create({
          model: connection.model,
          messages,
          max_tokens: 12,
        });
        messages.push(answer.choices[0]!.message, { role: "user", content: "Again." });
      }
      return { reward: count++ };
    },
    [{ seed: 1 }, { seed: 2 }],
    { groupSize: 4, concurrency: 2 },
  );
}

async function manifest(name: string, step: number) {
  const path = join(server.dataDir, "models", name, "policies", String(step), "manifest.json");
  return JSON.parse(await readFile(path, "utf8")) as { objective?: object };
}

it.each([
  { type: "dapo", learningRate: 1e-3 },
  { type: "gspo", beta: 0.05, optimizerSteps: 2, maxTokensPerMicroBatch: 64 },
  { type: "rloo", beta: 0.05, reference: 0 },
] as const)("a step with $type", async (options: TrainOptions) => {
  const name = `with-${options.type}`;
  const groups = await play(name);
  const model = await server.hone.model({ name });
  const result = await model.train(groups, options);
  expect(result).toMatchObject({ trained: true, step: 1 });
  expect(result.metrics["grad_norm"]).toBeGreaterThan(0);
  // Policy 0 is the base itself: the first step begins with no drift from it, and moves within its optimizer steps.
  if ("optimizerSteps" in options) expect(result.metrics["kl"]).toBeGreaterThan(0);
  else expect(result.metrics["kl"]).toBeCloseTo(0, 9);
  const every = "beta" in options;
  expect(result.metrics["kl_tokens"] === result.metrics["train_tokens"]).toBe(every);
  // The engine computes with the trainer's own weights: its logprobs are the old ones.
  const old = "optimizerSteps" in options || options.type === "rloo" ? 1 : null;
  expect(result.metrics["old_logprobs_from_sampler"]).toBe(old);
  expect(await manifest(name, 1)).toMatchObject({ objective: { type: options.type } });
});

it("a reference that the model does not have is refused before the step, and one it has is measured", async () => {
  const groups = await play("fixed");
  const model = await server.hone.model({ name: "fixed" });
  const train = (reference: number) => model.train(groups, { reference, measureKl: true });
  await expect(train(7)).rejects.toMatchObject({
    code: "policy_not_found",
    message: expect.stringContaining("There is no policy fixed@7"),
  });
  expect((await train(0)).metrics["kl"]).toBeCloseTo(0, 9);
});

it("a step with an objective of one's own, which the manifest names with its file's hash", async () => {
  const groups = await play("own");
  const model = await server.hone.model({ name: "own" });
  const own = (options: Record<string, number>, name = "best_of_group") =>
    model.train(groups, { type: "custom", name, options });

  await expect(own({ margin: -1 })).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("does not take this `margin`"),
  });
  await expect(own({}, "worst_of_group")).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("it has best_of_group"),
  });
  const result = await own({ margin: 0.2 });
  expect(result).toMatchObject({ trained: true, step: 1 });
  expect(result.metrics["better"]).toBeGreaterThan(0);
  expect(await manifest("own", 1)).toMatchObject({
    objective: {
      type: "custom",
      name: "best_of_group",
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
    },
  });
});

it.each(Object.entries(guide))("the guide's code for %s", async (name, train) => {
  const groups = await play(`guide-${name}`);
  const model = await server.hone.model({ name: `guide-${name}` });
  await train(model, groups);
  expect((await model.info()).learnt).toBe(1);
});

it("completions that train in another way than the reward of their rollout says", async () => {
  const model = await server.hone.model({ name: "by-turn", lora: { r: 4, alpha: 8 } });
  // Equal rewards compare nothing: what moves the policy is said of single turns.
  const [group] = await gather(
    model,
    async (rolloutModel) => {
      const connection = rolloutModel.connection();
      const client = new OpenAI(connection);
      const ask = (content: string) =>
        client.chat.completions.create({
          model: connection.model,
          messages: [{ role: "user", content }],
          max_tokens: 12,
        });
      const [first, second] = [await ask("Say 1."), await ask("Say 2.")];
      return {
        reward: 1,
        completions: { [first.id]: { trainable: false }, [second.id]: { weight: 2 } },
      };
    },
    [{ seed: 1 }],
    { groupSize: 2, concurrency: 2 },
  );
  const [one, other] = group?.trajectories ?? [];
  if (!group || !one || !other) throw new Error("no group");
  expect(await model.train([group])).toMatchObject({
    trained: false,
    reasons: { zero_variance: 1 },
  });

  const turns = [...(one.turns ?? []), ...one.histories.flatMap(({ turns: of }) => of ?? [])];
  const [trained = "", excluded = ""] = ["2", "false"].map(
    (value) =>
      Object.entries(one.completions ?? {}).find(([, of]) =>
        JSON.stringify(of).includes(value),
      )?.[0],
  );
  expect(turns.map(({ id }) => `chat${id}`).sort()).toEqual([trained, excluded].sort());
  const given = (completions: typeof one.completions): TrajectoryGroup => ({
    ...group,
    trajectories: [{ ...one, completions }, other],
  });
  await expect(model.train([given({ cmpl_nobody: { weight: 2 } })])).rejects.toMatchObject({
    code: "invalid_request",
    param: "op.groups[0].rollouts[0].completions.cmpl_nobody",
  });
  const own = { type: "custom", name: "best_of_group", options: {} } as const;
  await expect(model.train([given({ [trained]: { reward: 2 } })], own)).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("Give an advantage"),
  });

  const completions = { ...one.completions, [trained]: { reward: 2, weight: 2 } };
  const result = await model.train([given(completions)], { learningRate: 1e-3 });
  expect(result).toMatchObject({ trained: true, step: 1 });
  expect(result.groups[0]?.masked).toEqual({ excluded: 2 });
  expect(result.metrics["grad_norm"]).toBeGreaterThan(0);
});
