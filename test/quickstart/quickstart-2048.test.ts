import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ComparisonModel, readGroups } from "@hone/client";
import { trainRun, type OtherModel, type RunEvent, type RunOptions } from "@hone/client/run";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import task from "../../examples/2048/src/task.ts";
import { fakeHone } from "./fake-hone.ts";

let out: string;
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "hone-2048-"));
});
afterEach(async () => {
  await rm(out, { recursive: true });
});

/** No turn fits into a context of 4 tokens: the games of Hone's own model are over as they begin. */
const hone = () =>
  fakeHone({
    learnt: 3,
    maxModelLen: 4,
    base: (game) => ({ score: 100 + game }),
    trained: (game) => ({ score: 200 + 2 * game }),
  });

function run(
  others: OtherModel[],
  given: Partial<RunOptions<{ size: number; target: number }>> = {},
) {
  return trainRun(task, {
    ...{ name: "m", out, hone: hone(), compare: others },
    ...{ steps: 0, heldOut: 8, ungated: true, concurrency: 8 },
    ...given,
  });
}

interface Asked {
  max_tokens?: number;
  max_completion_tokens?: number;
}

const apiState = () => ({
  asked: [] as Asked[],
  broken: false,
  /** Statuses of the next answers. */
  faults: [] as number[],
});

/** An API that answers `right`, with as much usage as asked for, until it is out of order. */
function other(label = "openai/gpt"): OtherModel & ReturnType<typeof apiState> {
  const state = apiState();
  const model = new ComparisonModel({
    ...{ baseURL: "http://elsewhere/v1", apiKey: "k", model: "gpt" },
    fetch: async (_input, init) => {
      state.asked.push(JSON.parse(init?.body as string) as Asked);
      const status = state.faults.shift();
      if (status !== undefined) {
        const headers = { "retry-after-ms": "1" };
        return Response.json({ error: { message: "for a moment" } }, { status, headers });
      }
      if (state.broken) return Response.json({ error: { message: "wrong key" } }, { status: 401 });
      const message = { role: "assistant", content: "right" };
      const usage = { prompt_tokens: 1000, completion_tokens: 1, total_tokens: 1001 };
      return Response.json({ choices: [{ index: 0, message, finish_reason: "stop" }], usage });
    },
  });
  return Object.assign(state, { label, model, answerTokens: 64 });
}

const summaryIn = async () => JSON.parse(await readFile(join(out, "summary.json"), "utf8"));

describe("a run of the 2048 quickstart, but for its training,", () => {
  it("ends in a verdict, and finds the adapter of an earlier start", async () => {
    const summary = await run([]);
    expect(summary).toMatchObject({
      outcome: "learnt",
      policy: "m@3",
      verdict: { pairs: 8, before: 103.5, after: 207 },
      ...{ heldOut: 8, failed: {}, notCompared: {} },
      metrics: { cut: { before: 1, after: 1 } },
      adapter: "models/m/policies/3",
      starts: 1,
    });
    expect(await summaryIn()).toEqual(JSON.parse(JSON.stringify(summary)));
    const records = (await readFile(join(out, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
    expect(records.map((line) => JSON.parse(line).metric)).toEqual([
      ...["score", "reward", "won", "score", "reward", "won"],
    ]);
    // The base's games stand; the trained policy plays again.
    const again = await run([]);
    expect(again).toMatchObject({ starts: 2, verdict: summary.verdict });
    expect(again.seconds).toBeGreaterThan(summary.seconds);
    expect(again.stages["evaluating"]).toBeGreaterThan(summary.stages["evaluating"] ?? 0);
  });

  it("has another model play whole games, whatever Hone's own model can hold", async () => {
    const gpt = other();
    const summary = await run([gpt]);
    expect(summary.table.map(({ name }) => name)).toEqual(["base", "trained", "openai/gpt"]);
    const games = await readGroups(join(out, "trajectories", "eval-openai-gpt.jsonl"));
    expect(games.map(({ trajectories }) => trajectories[0]?.metrics["cut"])).toEqual(
      Array.from({ length: 8 }, () => 0),
    );
    expect(summary.turns).toBeGreaterThanOrEqual(8 * 10);
    expect(gpt.asked.every((body) => body.max_completion_tokens === 64)).toBe(true);
    expect(gpt.asked.some((body) => "max_tokens" in body)).toBe(false);
  });

  it("does not begin where another model cannot be asked", async () => {
    const gpt = other();
    gpt.broken = true;
    await expect(run([gpt])).rejects.toMatchObject({
      code: "invalid_config",
      message: expect.stringMatching(
        /^openai\/gpt cannot be compared with: 401 wrong key\. Nothing has been trained yet\.$/,
      ),
    });
    expect(gpt.asked).toHaveLength(1);
    expect(await readdir(out)).toEqual([]);
  });

  it("begins where another model's API is busy or down for a moment", async () => {
    const gpt = other();
    gpt.faults.push(429, 503);
    expect(await run([gpt], { heldOut: 2 })).toMatchObject({ notCompared: {} });
    const down = other();
    down.faults.push(503, 503, 503, 503);
    await rm(join(out, "settings.json"));
    await expect(run([down])).rejects.toThrow(/cannot be compared with: 503 for a moment/);
  });

  it("keeps its verdict where another model fails later, and can be ended again", async () => {
    const [gpt, fine] = [other(), other("http://b/v1#gpt")];
    const onEvent = (event: RunEvent) => {
      // After the check of the beginning, before its games.
      if (event.type === "evaluated" && event.label === "trained") gpt.broken = true;
    };
    const summary = await run([gpt, fine], { onEvent });
    expect(summary).toMatchObject({
      outcome: "learnt",
      notCompared: { "openai/gpt": expect.stringContaining("401 wrong key") },
    });
    expect(summary.table.map(({ name }) => name)).toEqual(["base", "trained", "http://b/v1#gpt"]);
    expect(await summaryIn()).toHaveProperty("outcome", "learnt");

    // Started again with the API still out of order, it ends as well, and asks nobody twice.
    const asked = fine.asked.length;
    const again = await run([gpt, fine]);
    expect(again).toMatchObject({ notCompared: summary.notCompared, table: summary.table });
    expect(fine.asked).toHaveLength(asked);
    gpt.broken = false;
    const last = await run([gpt, fine]);
    expect(last).toMatchObject({ notCompared: {}, table: { length: 4 } });
  });

  it("judges by fewer of the base's games where fewer are asked for", async () => {
    await run([]);
    const fewer = { heldOut: 7 };
    const summary = await run([], fewer);
    expect(summary.verdict).toMatchObject({ pairs: 7, unpaired: 0, before: 103 });
  });

  it("is not continued with answers of another length", async () => {
    await run([]);
    const longer = run([], { answerTokens: 9 });
    await expect(longer).rejects.toThrow(/answerTokens 8, not 9/);
  });
});

it("says before the training that a model has no room to answer", async () => {
  const gpt = other();
  const message = { role: "assistant", content: "" };
  const choices = [{ index: 0, message, finish_reason: "length" }];
  const fetch = async () => Response.json({ choices });
  const settings = { baseURL: "http://elsewhere/v1", apiKey: "k", model: "o", fetch };
  const thinking = { ...gpt, model: new ComparisonModel(settings) };
  await expect(run([thinking])).rejects.toThrow(
    /its tokens were used up before its answer began; --compare-t/,
  );
});
