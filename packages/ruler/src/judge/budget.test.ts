import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { JudgeBudget } from "./budget.ts";
import { groupOf, rewardsOf } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "../judging/score-group.ts";
import type { ScoreGroupOptions } from "../judging/score-group.ts";
import * as steps from "../testing/judge-steps.ts";
import { useJudges } from "../testing/judges.test-support.ts";
import type { ScriptedJudge } from "../testing/scripted-judge.ts";

const start = useJudges(afterEach);
beforeEach(() => {
  vi.spyOn(console, "warn").mockReturnValue();
  // Retries without their pauses.
  vi.spyOn(Math, "random").mockReturnValue(0);
});
afterEach(() => {
  vi.restoreAllMocks();
});

const options: ScoreGroupOptions = { cache: false, swallowErrors: false };
const usage = { promptTokens: 10_000, cachedTokens: 4000, completionTokens: 500 };
const priced = steps.score(({ finalText }) => Number.parseFloat(finalText), { usage });
const silent = steps.score(({ finalText }) => Number.parseFloat(finalText), { usage: null });
const two = groupOf("0.1", "0.9");
const pricesOf = (judge: ScriptedJudge) => ({
  [`${new URL(judge.endpoint.baseURL).host}/scripted`]: { input: 2, cachedInput: 0.5, output: 8 },
});

describe("cost", () => {
  it("is reported with cached tokens, and is not known without a price", async () => {
    const judge = await start({ script: [priced, priced] });
    const scored = await rulerScoreGroup(two, judge.endpoint, {
      ...options,
      prices: pricesOf(judge),
    });
    // 6000 fresh at 2, 4000 cached at 0.5, 500 written at 8, for a million each.
    expect(scored.metrics["ruler/cost_usd"]).toBeCloseTo(0.018, 10);
    expect(scored.metrics).toMatchObject({
      "ruler/prompt_tokens": 10_000,
      "ruler/cached_tokens": 4000,
      "ruler/completion_tokens": 500,
    });
    const unpriced = await rulerScoreGroup(two, judge.endpoint, options);
    expect(unpriced.judgement.costUsd).toBeNull();
    expect(unpriced.metrics).not.toHaveProperty("ruler/cost_usd");
  });

  it("is not known without usage, also where only a repair came without", async () => {
    const judge = await start({ script: [silent, steps.garbage(), silent] });
    const prices = pricesOf(judge);
    for (const calls of [1, 2]) {
      const scored = await rulerScoreGroup(two, judge.endpoint, { ...options, prices });
      expect(scored.judgement).toMatchObject({ calls, costUsd: null });
      expect(scored.metrics).not.toHaveProperty("ruler/cost_usd");
    }
  });
});

describe("a budget", () => {
  const run = (
    judge: ScriptedJudge,
    budget: JudgeBudget,
    rest: ScoreGroupOptions & { endings?: string[] } = {},
  ) => {
    const { endings = ["0.1", "0.2"], ...more } = rest;
    return rulerScoreGroup(groupOf(...endings), judge.endpoint, {
      ...options,
      budget,
      prices: pricesOf(judge),
      ...more,
    });
  };
  const short = { parameters: { max_tokens: 500 } };

  it("stops the call that it would not cover, counted over all groups", async () => {
    const judge = await start({ script: [priced, priced] });
    const budget = new JudgeBudget({ limitUsd: 0.04 });
    await run(judge, budget, short);
    await run(judge, budget, short);
    expect(budget.spentUsd).toBeCloseTo(0.036, 10);
    expect(budget.unconfirmedUsd).toBe(0);
    await expect(run(judge, budget, short)).rejects.toMatchObject({ failure: "over_budget" });
    await expect(rulerScoreGroup(two, judge.endpoint, { ...options, budget })).rejects.toThrow(
      /No price is known/,
    );
  });

  it("bounds the answer that it reserves money for", async () => {
    const judge = await start({ script: [priced, priced, priced] });
    const tight = new JudgeBudget({ limitUsd: 0.02 });
    // 16,000 tokens at 8 for a million are 0.128.
    await expect(run(judge, tight)).rejects.toMatchObject({ failure: "over_budget" });
    expect(judge.requests).toHaveLength(0);
    const wide = new JudgeBudget({ limitUsd: 1 });
    await run(judge, wide);
    await run(judge, wide, { parameters: { max_completion_tokens: 700 } });
    await rulerScoreGroup(two, judge.endpoint, { ...options, prices: pricesOf(judge) });
    const limits = judge.requests.map(({ body }) => [
      body["max_tokens"],
      body["max_completion_tokens"],
    ]);
    expect(limits).toEqual([
      [16_000, undefined],
      [undefined, 700],
      [undefined, undefined],
    ]);
  });

  it("asks OpenAI for its limit by the name that its reasoning models take", async () => {
    const sent: Record<string, unknown>[] = [];
    const fetch: typeof globalThis.fetch = (_input, init) => {
      sent.push(JSON.parse(init?.body as string) as Record<string, unknown>);
      return Promise.resolve(new Response("{}", { status: 400 }));
    };
    const budget = new JudgeBudget({ limitUsd: 1 });
    const asked = { ...options, apiKey: "sk-x", budget, fetch };
    await rulerScoreGroup(two, "openai/o4-mini", asked).catch(() => undefined);
    expect(sent[0]).toMatchObject({ max_completion_tokens: 16_000 });
    expect(sent[0]).not.toHaveProperty("max_tokens");
    expect(budget.spentUsd).toBe(0);
  });

  it("lets calls at once wait for what those under way give back", async () => {
    const judge = await start({ otherwise: priced });
    // Covers one reservation at a time, and both costs.
    const budget = new JudgeBudget({ limitUsd: 0.15 });
    const both = await Promise.all([
      run(judge, budget, { endings: ["0.1", "0.2"] }),
      run(judge, budget, { endings: ["0.3", "0.4"] }),
    ]);
    expect(both.map(rewardsOf)).toEqual([
      [0.1, 0.2],
      [0.3, 0.4],
    ]);
    expect(budget.spentUsd).toBeCloseTo(0.036, 10);
    // What the first one costs is not there for the second.
    const small = new JudgeBudget({ limitUsd: 0.008 });
    const ended = await Promise.allSettled([
      run(judge, small, { ...short, endings: ["0.1", "0.2"] }),
      run(judge, small, { ...short, endings: ["0.3", "0.4"] }),
    ]);
    expect(ended.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(judge.requests).toHaveLength(3);
  });

  it("comes to its end also where answers have no usage", async () => {
    const judge = await start({ otherwise: silent });
    const budget = new JudgeBudget({ limitUsd: 0.02 });
    const scored = await run(judge, budget, short);
    expect(scored.judgement.costUsd).toBeNull();
    // At least the 500 tokens of the answer, at 8 for a million.
    expect(budget.spentUsd).toBeGreaterThan(0.004);
    expect(budget.unconfirmedUsd).toBe(budget.spentUsd);
    await run(judge, budget, short);
    await run(judge, budget, short);
    await expect(run(judge, budget, short)).rejects.toMatchObject({ failure: "over_budget" });
    expect(judge.requests).toHaveLength(3);
  });

  it.each([
    ["breaks off", steps.hangUp, 2],
    ["breaks off in its body", steps.cutBody, 2],
    ["gets no answer in time", steps.silence, 2],
    ["a gateway gave up on", steps.httpError(504), 2],
    ["fails after it was begun", steps.httpError(502, { inBody: true }), 2],
    ["is refused", steps.httpError(429), 0],
    ["is refused in the body", steps.httpError(429, { inBody: true }), 0],
    ["fails", steps.httpError(500), 0],
  ])("counts an attempt that %s", async (_name, step, charged) => {
    const judge = await start({ script: [step, step, priced] });
    const budget = new JudgeBudget({ limitUsd: 1 });
    // Only where an answer never comes may time run out: an answer on a slow machine is an answer.
    const limit = step === steps.silence ? { timeoutMs: 2_000 } : {};
    await run(judge, budget, { parameters: { max_tokens: 5000 }, ...limit });
    // 5000 tokens at 8 for a million, and some for the prompt, each; 0.018 for the answer.
    expect(budget.unconfirmedUsd).toBeGreaterThanOrEqual(charged * 0.04);
    expect(budget.unconfirmedUsd).toBeLessThan(charged * 0.043 + 1e-9);
    expect(budget.spentUsd).toBeCloseTo(budget.unconfirmedUsd + 0.018, 10);
  });

  it("counts nothing for a connection that was never made", async () => {
    const judge = await start({});
    await judge.close();
    const budget = new JudgeBudget({ limitUsd: 1 });
    await expect(run(judge, budget)).rejects.toMatchObject({ failure: "unreachable" });
    expect(budget.spentUsd).toBe(0);
  });

  it("counts a call that the caller's signal ended", async () => {
    const judge = await start({ otherwise: steps.silence });
    const budget = new JudgeBudget({ limitUsd: 1 });
    const ending = new AbortController();
    const scoring = run(judge, budget, { signal: ending.signal });
    await vi.waitFor(() => expect(judge.requests).toHaveLength(1), { timeout: 30_000 });
    ending.abort();
    await expect(scoring).rejects.toMatchObject({ code: "aborted" });
    await vi.waitFor(() => expect(budget.spentUsd).toBeGreaterThan(0.128), { timeout: 30_000 });
  });
});
