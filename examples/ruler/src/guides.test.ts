import { quotaExhausted, score, ScriptedJudge } from "@hone/ruler/testing";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { exampleGroup, groupOf } from "./example-group.ts";
import { brief, capital, combine, invoice, politeReply, total } from "./rewards-guide.ts";
import * as guide from "./ruler-guide.ts";

let judge: ScriptedJudge;
beforeAll(async () => {
  vi.spyOn(console, "log").mockReturnValue();
  vi.spyOn(console, "error").mockReturnValue();
  // Answers are cached on disk: in a folder of the test, none of them are.
  vi.stubEnv("HONE_HOME", "/dev/null/no-home");
  judge = await ScriptedJudge.start({
    otherwise: score(({ finalText }) => (finalText.includes("9:40") ? 0.9 : 0.2)),
  });
});
afterAll(async () => {
  await judge.close();
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

describe("the RULER guide", () => {
  it("does what it says", async () => {
    const scored = await guide.scoreGroup(exampleGroup, judge.endpoint);
    expect(scored.trajectories.map(({ reward }) => reward)).toEqual([0.9, 0.2]);
    const judgement = await guide.measureTheJudge(exampleGroup, judge.endpoint);
    expect(judgement).toMatchObject({ calls: 4, passSpread: 0, positionBias: 0 });
    const scores = await guide.bareConversations(judge.endpoint);
    expect(scores.map((given) => given?.score)).toEqual([0.9, 0.2]);
    vi.stubEnv("JUDGE_KEY", "test-key");
    const own = await guide.ownEndpoint(exampleGroup, judge.endpoint.baseURL);
    expect(own.judgement.status).toBe("judged");
    expect(judge.requests.at(-1)?.body).toMatchObject({ model: "qwen3-32b", max_tokens: 4000 });
  });

  it("fails as it says", async () => {
    const poor = await ScriptedJudge.start({ otherwise: quotaExhausted() });
    expect(await guide.failLoudly(exampleGroup, poor.endpoint)).toBeNull();
    expect(poor.requests).toHaveLength(1);
    await poor.close();
  });
});

describe("the rewards guide", () => {
  it("does what it says", async () => {
    const think = "<think>3 and 8</think>\n<answer>3 * 8</answer>";
    const { scored, metrics } = await combine([
      groupOf([think, "24"], { kind: "countdown", numbers: [3, 8], target: 24 }),
      groupOf(["```python\nx = 1\n```", "import os"], { kind: "code" }),
    ]);
    expect(scored.map((g) => g.trajectories.map(({ reward }) => reward))).toEqual([
      [1.1, 0],
      [1, 0],
    ]);
    expect(metrics["rewards/arithmetic/mean"]).toBe(0.5);
    const [hello] = groupOf(["Hello Ann, it is sent. Regards, Bob"]).trajectories;
    const context = { group: exampleGroup, index: 0 };
    if (!hello) throw new Error("No trajectory.");
    expect(politeReply(hello, context)).toBe(1);
    expect([capital, total, invoice, brief].map((fn) => fn(hello, context))).toEqual([
      null,
      null,
      0,
      0,
    ]);
  });
});
