/** Loops of one's own on the shipped base: gradients, optimizer steps, samples, and what survives a death. */
import { createHash } from "node:crypto";
import type { Datum, HoneError, Model, OperationEvent } from "@hone/client";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
}, 120_000);
afterAll(() => server?.close());

const step = { learningRate: 3e-3 };
const code = (error: unknown) => (error as HoneError).code;

/** A text to imitate: its ids, moved by one. */
async function datumOf(model: Model, text: string): Promise<Datum> {
  const { promptIds } = await model.sample(text, { maxTokens: 1 });
  return { tokens: promptIds.slice(0, -1), targets: promptIds.slice(1) };
}

async function adapterOf(policy: string): Promise<string> {
  const [name, number] = policy.split("@");
  const path = `/v1/models/${name}/policies/${number}/files/adapter_model.safetensors`;
  const bytes = Buffer.from(await (await server.fetch(path)).arrayBuffer());
  expect(bytes.length).toBeGreaterThan(1000);
  return createHash("sha256").update(bytes).digest("hex");
}

async function killWorker(): Promise<void> {
  const health = (await (await server.fetch("/health")).json()) as {
    components: { worker: { pid: number } };
  };
  process.kill(health.components.worker.pid, "SIGKILL");
}

it("a loop of imitation lowers the loss, and what it left is sampled by the logprobs that forward gives", async () => {
  const model = await server.hone.model({ name: "imitating" });
  const data = [
    await datumOf(model, "The hat is red."),
    await datumOf(model, "The hat is blue and the car is green."),
  ];
  const losses: number[] = [];
  for (let nth = 0; nth < 8; nth++) {
    // Both are on their way at once, and done in this order.
    const [passed, made] = await Promise.all([model.forwardBackward(data), model.optimStep(step)]);
    expect(passed).toMatchObject({ policy: `imitating@${nth}`, accumulated: 1 });
    expect(made).toMatchObject({ policy: `imitating@${nth + 1}`, accumulated: 1 });
    losses.push(passed.loss);
    const summed = passed.logprobs.flat().reduce((sum, one) => sum - one, 0);
    expect(passed.loss).toBeCloseTo(summed, 3);
  }
  expect(losses[7]).toBeLessThan(losses[0]! * 0.75);

  const { policy, promptIds, samples } = await model.sample("The hat", {
    n: 3,
    maxTokens: 12,
    temperature: 0.7,
  });
  expect(policy).toBe("imitating@8");
  const sequences = samples.map(({ ids }) => [...promptIds, ...ids]);
  const { logprobs, accumulated } = await model.forward(
    sequences.map((ids) => ({ tokens: ids.slice(0, -1), targets: ids.slice(1) })),
    { temperature: 0.7 },
  );
  expect(accumulated).toBeNull();
  samples.forEach((sample, at) => {
    const ours = logprobs[at]!.slice(promptIds.length - 1);
    expect(ours).toHaveLength(sample.ids.length);
    ours.forEach((one, i) => expect(one).toBeCloseTo(sample.logprobs[i]!, 4));
  });

  // Kept, and still what it was when others have followed.
  expect(await model.save()).toMatchObject({ id: "imitating@8", pinned: true });
  await model.forwardBackward(data, { loss: "cross_entropy" });
  await model.optimStep(step);
  const greedy = { maxTokens: 6, temperature: 0 };
  const [old, now] = [await model.at(8).sample("The", greedy), await model.sample("The", greedy)];
  expect([old.policy, now.policy]).toEqual(["imitating@8", "imitating@9"]);
}, 300_000);

it("a loop of reinforcement makes what was rewarded likelier", async () => {
  const model = await server.hone.model({ name: "reinforced" });
  const wanted = (text: string) => (text.match(/e/g) ?? []).length;
  const means: number[] = [];
  for (let nth = 0; nth < 5; nth++) {
    const { promptIds, samples } = await model.sample("2", { n: 32, maxTokens: 12, seed: nth });
    const rewards = samples.map(({ text }) => wanted(text));
    const mean = rewards.reduce((sum, one) => sum + one, 0) / rewards.length;
    means.push(mean);
    const before = promptIds.length - 1;
    const zeros = Array.from({ length: before }, () => 0);
    const data = samples.map(({ ids, logprobs }, at): Datum => {
      const sequence = [...promptIds, ...ids];
      const advantage = (rewards[at]! - mean) / 32;
      return {
        tokens: sequence.slice(0, -1),
        targets: sequence.slice(1),
        logprobs: [...zeros, ...logprobs],
        advantages: [...zeros, ...ids.map(() => advantage)],
      };
    });
    const { metrics } = await model.forwardBackward(data, { loss: "importance_sampling" });
    expect(metrics["sampling/sampling_logp_difference/max"]).toBeLessThan(1e-3);
    await model.optimStep({ learningRate: 1e-2 });
  }
  expect(means.at(-1)).toBeGreaterThan(means[0]! + 0.5);
}, 300_000);

it("two loops take turns, and the death of the worker between two calls changes no bit", async () => {
  const [one, other] = [
    await server.hone.model({ name: "one", seed: 5 }),
    await server.hone.model({ name: "other", seed: 5 }),
  ];
  const a = [await datumOf(one, "A dog is small.")];
  const b = [await datumOf(one, "A tree is tall."), await datumOf(one, "A tree is old.")];
  await one.forwardBackward(a);
  await other.forwardBackward(a);
  const [first, second] = await Promise.all([one.forwardBackward(b), other.forwardBackward(b)]);
  expect([first.accumulated, second.accumulated]).toEqual([2, 2]);
  expect(first.logprobs).toEqual(second.logprobs);
  const undisturbed = await one.optimStep({ ...step, accumulated: 2 });
  await killWorker();
  const redone = await other.optimStep({ ...step, accumulated: 2 });
  expect(await adapterOf(redone.policy)).toBe(await adapterOf(undisturbed.policy));
  expect(await adapterOf(undisturbed.policy)).not.toBe(await adapterOf("one@0"));

  // In the middle of a call, too: it is done again.
  const events: OperationEvent[] = [];
  let killed: Promise<void> | undefined;
  const onEvent = (event: OperationEvent) => {
    events.push(event);
    if (event.type === "stage" && event.stage === "load") killed ??= killWorker();
  };
  const long = Array.from({ length: 12 }, () => b).flat();
  const many = { maxTokensPerMicroBatch: 1 };
  const disturbed = await other.forwardBackward(long, { ...many, onEvent });
  await killed;
  expect(events.some(({ type }) => type === "warning")).toBe(true);
  expect(disturbed.logprobs).toEqual((await one.forwardBackward(long, many)).logprobs);
}, 300_000);

it("what cannot be done is refused by name", async () => {
  const model = await server.hone.model({ name: "strict" });
  const datum = await datumOf(model, "A hat.");
  const ones = datum.tokens.map(() => 1);
  await expect(model.optimStep(step)).rejects.toThrow(/no gradient of strict@0/);
  for (const [given, message] of [
    [{ ...datum, targets: [1] }, /data\[0\].targets is wrong: it has 1 elements, and tokens has/],
    [{ ...datum, advantages: ones }, /data\[0\].advantages.*"cross_entropy" does not read it/],
    [{ ...datum, weights: [Number.NaN, ...ones.slice(1)] }, /data\[0\].weights\[0\]/],
    [{ ...datum, tokens: [0.5, ...datum.tokens.slice(1)] }, /data\[0\].tokens\[0\]/],
  ] as const) {
    await expect(model.forwardBackward([given as Datum])).rejects.toThrow(message);
  }
  await expect(model.forwardBackward([datum], { loss: "ppo" })).rejects.toThrow(
    /data\[0\].logprobs.*the loss "ppo" needs it/,
  );
  await expect(model.forwardBackward([datum], { loss: "grpo" as "ppo" })).rejects.toThrow(
    /loss.type.*one of cross_entropy, importance_sampling/,
  );
  const misspelt = model.optimStep({ lr: 1 } as never).catch(code);
  expect(await misspelt).toBe("unsupported_parameter");
  const long = Array.from({ length: 9000 }, () => 1);
  await expect(model.forwardBackward([{ tokens: long, targets: long }])).rejects.toThrow(
    /data\[0\] has 9000 tokens/,
  );
  const foreign = { ...datum, targets: datum.targets.map(() => 10 ** 6) };
  const refused = model.forwardBackward([datum, foreign]);
  await expect(refused).rejects.toThrow(/data\[1\]\.targets\[0\] is 1000000, and token ids/);
  expect(await refused.catch(code)).toBe("invalid_request");

  // Gradients of a program that ended before its step are found, or let go of.
  await model.forwardBackward([datum]);
  expect((await model.forwardBackward([datum])).accumulated).toBe(2);
  expect(await model.optimStep({ ...step, accumulated: 1 }).catch(code)).toBe("no_gradient");
  expect((await model.forwardBackward([datum], { fresh: true })).accumulated).toBe(1);
  await model.optimStep({ ...step, accumulated: 1 });
  // They were of another policy.
  expect(await model.optimStep(step).catch(code)).toBe("no_gradient");

  // The same token is the same call.
  const named = { clientToken: "call-1" };
  const call = await model.forwardBackward([datum], named);
  expect(await model.forwardBackward([datum], named)).toEqual(call);
  expect(call.accumulated).toBe(1);

  const signal = AbortSignal.timeout(0);
  expect(await model.forwardBackward([datum], { signal }).catch(code)).toMatch(/aborted|timeout/);
}, 300_000);
