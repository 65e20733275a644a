import { gather, type Model, type RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectSameLogprobs } from "./support/sampler-difference.ts";
import { startTestServer, type TestServer } from "./support/server.ts";

/**
 * The test that learning works at all: one token, from a base rate of 5–25% to 90%, through the whole
 * loop. With the rewards shuffled within each group it must not get there.
 */
async function sayYes(model: RolloutModel): Promise<{ reward: number }> {
  const client = new OpenAI(model.connection());
  const completion = await client.chat.completions.create({
    model: model.connection().model,
    messages: [{ role: "user", content: "Say a word." }],
    max_tokens: 4,
  });
  return { reward: completion.choices[0]?.message.content?.trim() === "yes" ? 1 : 0 };
}

async function share(model: RolloutModelSource): Promise<number> {
  const groups = await gather(model, sayYes, [{}], {
    groupSize: 128,
    concurrency: 64,
    mode: "eval",
  });
  const rewards = groups.flatMap((g) => g.trajectories.map((t) => t.reward ?? 0));
  expect(rewards).toHaveLength(128);
  return rewards.reduce((a, b) => a + b, 0) / rewards.length;
}
type RolloutModelSource = Parameters<typeof gather>[0];

/** A permutation from a seed, so that a failure can be looked at again. */
function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j] as T, copy[i] as T];
  }
  return copy;
}

function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns how many steps were taken from a trained adapter, with its logprobs compared. */
async function train(model: Model, steps: number, shuffle: boolean): Promise<number> {
  let compared = 0;
  const random = mulberry(7);
  for (let step = 0; step < steps; step++) {
    let groups = await gather(model, sayYes, [{}, {}, {}, {}], { groupSize: 16, concurrency: 64 });
    if (shuffle) {
      groups = groups.map((g) => {
        const rewards = shuffled(
          g.trajectories.map((t) => t.reward),
          random,
        );
        return {
          ...g,
          trajectories: g.trajectories.map((t, i) => ({ ...t, reward: rewards[i] ?? null })),
        };
      });
    }
    const result = await model.train(groups, {
      learningRate: 5e-3,
      warmupSteps: 0,
      normalizerTokens: 2,
      scaleRewards: "group",
    });
    // A step can have nothing to compare: near the end every answer of it may be "yes".
    if (!result.trained) continue;
    expectSameLogprobs(result);
    // Policy 0 is the base: its adapter adds nothing.
    if (result.step >= 2) compared++;
  }
  return compared;
}

describe("a one-token task through the whole loop", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server?.close());

  it("goes from a base rate of 5–25% to at least 90% within two minutes", async () => {
    const model = await server.hone.model({ name: "yes" });
    const before = await share(model.at(0));
    expect(before).toBeGreaterThan(0.03);
    expect(before).toBeLessThan(0.3);
    const start = performance.now();
    let after = 0;
    let compared = 0;
    while (after < 0.9 && performance.now() - start < 120_000) {
      compared += await train(model, 4, false);
      after = await share(model);
    }
    expect(after).toBeGreaterThanOrEqual(0.9);
    expect(compared).toBeGreaterThan(0);
    expect(await share(model.at(0))).toBeLessThan(0.3);
  });

  it("does not get there when rewards are shuffled within groups", async () => {
    const model = await server.hone.model({ name: "shuffled" });
    expect(await train(model, 12, true)).toBeGreaterThan(0);
    expect(await share(model)).toBeLessThan(0.6);
  });
});
