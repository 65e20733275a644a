import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gather } from "@hone/client";
import type { RolloutModel } from "@hone/client";
import { combineRewards } from "@hone/ruler/rewards";
import { rulerScoreGroup } from "@hone/ruler";
import { garbage, score, ScriptedJudge } from "@hone/ruler/testing";
import OpenAI from "openai";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let episodes = 0;
/** No two are alike: members that said the same would be judged as one. */
async function rollout(model: RolloutModel, scenario: { prompt: string }) {
  const { model: name, ...connection } = model.connection();
  await new OpenAI(connection).chat.completions.create({
    model: name,
    messages: [{ role: "user", content: `${scenario.prompt}\nepisode ${(episodes += 1)}` }],
    max_tokens: 6,
  });
  return null; // none yet: a judge gives it
}
/** Answers are one word of eight, mostly: in fewer rollouts all may be the same, and nothing is judged then. */
const groupSize = 12;

/** Hash by path of every adapter that the server holds. */
async function adapters(folder: string): Promise<Map<string, string>> {
  const names = await readdir(folder, { recursive: true });
  const found = names.filter((name) => name.endsWith("adapter_model.safetensors")).sort();
  return new Map(
    await Promise.all(
      found.map(async (name): Promise<[string, string]> => {
        const bytes = await readFile(join(folder, name));
        return [name, createHash("sha256").update(bytes).digest("hex")];
      }),
    ),
  );
}

const scenarios = [{ prompt: "2 4\n_ 2" }, { prompt: "8 4\n2 2" }];

describe("groups that a judge scored", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
    vi.stubEnv("HONE_URL", server.url);
    vi.stubEnv("HONE_API_KEY", server.key);
  });
  afterEach(() => {
    vi.restoreAllMocks();
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    await server?.close();
  });

  it("train; those that it failed on, or that have no reward, move no weight", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const model = await server.hone.model({ name: "judged" });
    const groups = await gather(model, rollout, scenarios, { groupSize });
    const before = await adapters(server.dataDir);
    expect(before.size).toBeGreaterThan(0);

    const failing = await ScriptedJudge.start({ otherwise: garbage() });
    const failed = await Promise.all(
      groups.map((group) => rulerScoreGroup(group, failing.endpoint, { cache: false })),
    );
    await failing.close();
    const nothing = await model.train(failed);
    expect(nothing).toMatchObject({ trained: false, step: 0, reasons: { judge_failed: 2 } });

    const none = await combineRewards([{ name: "none", fn: () => null }]).score(groups);
    expect(await model.train(none.groups)).toMatchObject({
      trained: false,
      reasons: { no_reward: 2 },
    });
    expect(await adapters(server.dataDir)).toEqual(before);

    const judge = await ScriptedJudge.start({
      otherwise: score((attempt, { attempts }) => attempts.indexOf(attempt) / attempts.length),
    });
    const scored = await Promise.all(
      groups.map((group) => rulerScoreGroup(group, judge.endpoint, { cache: false })),
    );
    await judge.close();
    expect(judge.requests).toHaveLength(2);
    const result = await model.train(scored);
    expect(result).toMatchObject({ trained: true, step: 1 });
    const after = await adapters(server.dataDir);
    expect(new Set(after.values()).size).toBe(before.size + 1);
  });

  it("train in the guide's loop", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    vi.stubEnv("OPENAI_API_KEY", "test-key");
    const judge = await ScriptedJudge.start({
      otherwise: score((attempt, { attempts }) => attempts.indexOf(attempt) / attempts.length),
    });
    // The judge that the guide names, at an address of ours.
    const { fetch } = globalThis;
    vi.spyOn(globalThis, "fetch").mockImplementation((input, init) => {
      const url = input instanceof Request ? input.url : input.toString();
      return fetch(url.replace("https://api.openai.com/v1", judge.endpoint.baseURL), init);
    });
    const path = new URL("../../examples/ruler/src/ruler-guide.ts", import.meta.url).href;
    const { trainWithJudge } = (await import(path)) as {
      trainWithJudge: (...args: unknown[]) => Promise<void>;
    };
    const model = await server.hone.model({ name: "guide" });
    vi.stubEnv("HONE_HOME", server.dataDir);
    await trainWithJudge(
      model,
      (own: RolloutModel, { question }: { question: string }) => rollout(own, { prompt: question }),
      Array.from({ length: 8 }, (_, n) => ({ question: `2 ${n}` })),
      "openai/o4-mini",
      2,
    );
    await judge.close();
    expect((await model.info()).served).toBeGreaterThan(0);
    expect(judge.requests.length).toBeGreaterThanOrEqual(8);
  });

  it("a model of the server judges in a rollout of its own", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    const model = await server.hone.model({ name: "self" });
    const [group] = await gather(model, rollout, scenarios.slice(0, 1), { groupSize });
    if (!group) throw new Error("No group.");
    // A game model of a million weights is no judge: what it says cannot be used, and is recorded.
    const scored = await rulerScoreGroup(group, "hone/self@0", {
      parameters: { max_tokens: 16 },
      rubric: "More is better.",
    });
    const { judgement } = scored;
    expect(scored.metadata["failed"]).toBe("judge_failed");
    const [own] = judgement.trajectories;
    expect(own).toMatchObject({ policy: "self@0", reward: null });
    const recorded = await server.fetch(`/v1/rollouts/${own?.rolloutId}`);
    expect(await recorded.json()).toMatchObject({
      model: "self",
      status: "failed",
      completions: 2,
      policy: "self@0",
    });
  });
});
