import { gather, type Model, type RolloutModel } from "@hone/client";
import { mulberry32 } from "@hone/core";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/**
 * The test that learning works at all: one token, from a base rate of 5–25% to 90%, through the whole
 * loop. With the rewards shuffled within each group it must not get there.
 */
async function sayYes(model: RolloutModel): Promise<{ reward: number }> {
  drawn += 1;
  const client = new OpenAI(model.connection());
  const completion = await client.chat.completions.create({
    model: model.connection().model,
    messages: [{ role: "user", content: "Say a word." }],
    max_tokens: 4,
    seed: drawn,
  });
  return { reward: completion.choices[0]?.message.content?.trim() === "yes" ? 1 : 0 };
}

/** Each answer has a seed of its own, the same in every run of these tests. */
let drawn = 0;

async function share(model: Policy, of = 128): Promise<number> {
  const groups = await gather(model, sayYes, [{}], {
    groupSize: of,
    concurrency: 64,
    mode: "eval",
  });
  const rewards = groups.flatMap((g) => g.trajectories.map((t) => t.reward ?? 0));
  expect(rewards).toHaveLength(of);
  return rewards.reduce((a, b) => a + b, 0) / rewards.length;
}
type Policy = Parameters<typeof gather>[0];

/**
 * A permutation from a seed, so that a failure can be looked at again. Of rewards that say nothing, some runs
 * learn the rewarded answer nevertheless: by chance it has earned more than others, and then it spreads. So
 * this is one of the permutations by which it has not.
 */
function shuffled(rewards: readonly number[], random: () => number): number[] {
  const earned = rewards.reduce((sum, reward) => sum + reward, 0);
  for (;;) {
    const told = [...rewards];
    for (let i = told.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [told[i], told[j]] = [told[j]!, told[i]!];
    }
    const kept = told.filter((reward, i) => reward === 1 && rewards[i] === 1).length;
    if (kept <= (earned * earned) / rewards.length) return told;
  }
}

/** Returns how many steps trained, and how many of them from a trained adapter, with its logprobs compared. */
async function train(model: Model, steps: number, shuffle: boolean) {
  let [trained, compared] = [0, 0];
  const random = mulberry32(7);
  for (let step = 0; step < steps; step++) {
    let groups = await gather(model, sayYes, [{}, {}, {}, {}], { groupSize: 16, concurrency: 64 });
    if (shuffle) {
      groups = groups.map((g) => {
        const rewards = shuffled(
          g.trajectories.map((t) => t.reward ?? 0),
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
    trained++;
    expectSameLogprobs(result);
    // Policy 0 is the base: its adapter adds nothing.
    if (result.step >= 2) compared++;
  }
  return { trained, compared };
}

describe("a one-token task through the whole loop", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server?.close());

  it("goes from a base rate of 5–25% to at least 90% within forty steps", async () => {
    const model = await server.hone.model({ name: "yes" });
    // So many that chance stays within these bounds: about one answer in twelve is "yes".
    const before = await share(model.at(0), 1024);
    expect(before).toBeGreaterThan(0.03);
    expect(before).toBeLessThan(0.3);
    let after = 0;
    let compared = 0;
    // Five steps do it as a rule.
    for (let round = 0; after < 0.9 && round < 10; round++) {
      compared += (await train(model, 4, false)).compared;
      after = await share(model);
    }
    expect(after).toBeGreaterThanOrEqual(0.9);
    expect(compared).toBeGreaterThan(0);
    expect(await share(model.at(0))).toBeLessThan(0.3);
  });

  it("does not get there when rewards are shuffled within groups", async () => {
    const model = await server.hone.model({ name: "shuffled" });
    expect((await train(model, 12, true)).trained).toBeGreaterThan(0);
    expect(await share(model)).toBeLessThan(0.6);
  });
});
