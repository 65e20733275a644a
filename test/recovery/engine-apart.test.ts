/** The embedded engine in a process of its own, beside the trainer's: what befalls one leaves the other alone. */
import { createHash } from "node:crypto";
import { gather, type Model, type RolloutModel, type SftExample } from "@hone/client";
import type { OperationEvent } from "@hone/core";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { worthOf } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(undefined, { engineProcess: "own" });
});
afterAll(() => server?.close());

interface Health {
  status: string;
  components: Record<string, { pid: number; restarts: number }>;
}

async function health(): Promise<Health> {
  return (await (await server.fetch("/health")).json()) as Health;
}

async function childOf(name: "worker" | "engine") {
  const found = (await health()).components[name];
  if (!found) throw new Error(`there is no ${name}`);
  return found;
}

async function back(): Promise<void> {
  await expect
    .poll(async () => (await health()).status, { timeout: 120_000, interval: 100 })
    .toBe("ok");
}

async function say(model: string, tokens: number) {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 0 });
  return await client.chat.completions.create({
    ...{ model, max_tokens: tokens },
    messages: [{ role: "user", content: "Count." }],
  });
}

async function play(model: Model) {
  const rollout = async (one: RolloutModel) => {
    const connection = one.connection();
    const completion = await new OpenAI({ ...connection, maxRetries: 8 }).chat.completions.create({
      ...{ model: connection.model, max_tokens: 24 },
      messages: [{ role: "user", content: "Say a word." }],
    });
    return worthOf(completion.choices[0]?.message.content ?? "") + Math.random() / 97;
  };
  return await gather(model, rollout, [{}, {}], { groupSize: 8 });
}

/** Runs when the step's data are with the trainer, once. `done` is its end. */
function whileComputing(run: () => Promise<unknown>) {
  let done: Promise<unknown> | null = null;
  return {
    onEvent(event: OperationEvent) {
      if (event.type === "stage" && event.stage === "pack") done ??= run();
    },
    async done() {
      expect(done).not.toBeNull();
      return await done;
    },
  };
}

it("the engine answers while the trainer stands still in the middle of a step, which then goes on", async () => {
  const model = await server.hone.model({ name: "still" });
  const groups = await play(model);
  const worker = await childOf("worker");
  expect((await childOf("engine")).pid).not.toBe(worker.pid);
  const during = whileComputing(async () => {
    process.kill(worker.pid, "SIGSTOP");
    try {
      return await Promise.all([1, 2, 3, 4].map(async () => (await say("still", 16)).model));
    } finally {
      process.kill(worker.pid, "SIGCONT");
    }
  });
  const result = await model.train(groups, {
    maxTokensPerMicroBatch: 256,
    onEvent: during.onEvent,
  });
  // A policy that has not been published answers nobody.
  expect(await during.done()).toEqual(Array(4).fill("still@0"));
  expect(result).toMatchObject({ trained: true, step: 1, policy: "still@1" });
  expect((await say("still", 4)).model).toBe("still@1");
  expect(result.metrics["sampling/sampling_logp_difference/mean"]).toBeLessThan(1e-3);
});

it("an engine that dies keeps no step from its end, and has what is live when it is back", async () => {
  const model = await server.hone.model({ name: "survivor" });
  const groups = await play(model);
  const [worker, engine] = [await childOf("worker"), await childOf("engine")];
  const during = whileComputing(async () => process.kill(engine.pid, "SIGKILL"));
  const result = await model.train(groups, {
    maxTokensPerMicroBatch: 256,
    onEvent: during.onEvent,
  });
  await during.done();
  expect(result).toMatchObject({ trained: true, step: 1 });
  await back();
  expect(await childOf("worker")).toMatchObject({ pid: worker.pid, restarts: worker.restarts });
  expect((await childOf("engine")).restarts).toBe(engine.restarts + 1);
  expect((await say("survivor", 4)).model).toBe("survivor@1");
  expect((await say("still", 4)).model).toBe("still@1");
});

it("a trainer that dies breaks no answer, and its step comes out the same, bit for bit", async () => {
  const examples: SftExample[] = Array.from({ length: 24 }, (_, n) => ({
    messages: [
      { role: "user", content: `What comes after ${n}?` },
      { role: "assistant", content: `It is ${n + 1}.` },
    ],
  }));
  const weights = async (name: string, options: object): Promise<string> => {
    const model = await server.hone.model({ name, seed: 7 });
    const how = { learningRate: 3e-3, warmupSteps: 0, batchSize: 24, epochs: 1, ...options };
    expect(await model.sft(examples, how)).toMatchObject({ steps: 1, policy: `${name}@1` });
    const path = `/v1/models/${name}/policies/1/files/adapter_model.safetensors`;
    const bytes = Buffer.from(await (await server.fetch(path)).arrayBuffer());
    return createHash("sha256").update(bytes).digest("hex");
  };
  const quiet = await weights("quiet", {});
  const worker = await childOf("worker");
  const during = whileComputing(async () => {
    const answers = [1, 2, 3].map(() => say("quiet", 400));
    process.kill(worker.pid, "SIGKILL");
    return (await Promise.all(answers)).map(({ model, usage }) => [
      model,
      usage?.completion_tokens,
    ]);
  });
  expect(await weights("killed", { onEvent: during.onEvent })).toBe(quiet);
  const answered = (await during.done()) as [string, number][];
  expect(answered.map(([model]) => model)).toEqual(Array(3).fill("quiet@1"));
  expect((await childOf("worker")).pid).not.toBe(worker.pid);
  await back();
});
