import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { compare, evaluationTable } from "./evaluation/compare.ts";
import { ComparisonModel } from "./rollouts/comparison-model.ts";
import { fillBatch } from "./training/fill.ts";
import { openRunLog } from "./run-log/run-log.ts";
import { playAhead } from "./training/play-ahead.ts";
import { shuffleRewards } from "./training/control.ts";
import { gather } from "./rollouts/gather.ts";
import { readGroups, writeGroups } from "./training/group-files.ts";
import { Hone } from "./hone.ts";
import type { Model } from "./model.ts";
import { rolloutRoutes, startRouteServer } from "./testing/route-server.ts";
import type { RouteServer } from "./testing/route-server.ts";
import { splitScenarios } from "./training/scenarios.ts";

let server: RouteServer;
let hone: any;
let model: any;
beforeEach(async () => {
  server = await startRouteServer(rolloutRoutes().routes);
  hone = server.hone();
  model = (await server.hone().model({ name: "m" })) satisfies Model;
});
afterEach(() => server.close());

/** Neither a TypeError from within nor silence. */
async function refused(call: () => unknown): Promise<any> {
  const before = server.received.length;
  try {
    await call();
  } catch (error: any) {
    expect(error).toMatchObject({
      name: "HoneError",
      code: expect.stringMatching(
        /^(invalid_request|invalid_config|unsupported_parameter|policy_not_found)$/,
      ),
    });
    expect(error.message).not.toMatch(/Invalid input|not iterable|undefined \(reading/);
    expect(server.received).toHaveLength(before);
    return error;
  }
  throw new Error("it was taken");
}

const wrongObjects = [null, "x", 5, true, [], Promise.resolve({}), () => 1, new Map()];

describe("what is of the wrong kind is refused by name", () => {
  it("a model's name", async () => {
    for (const name of [
      undefined,
      null,
      5,
      ["m"],
      Promise.resolve("m"),
      "",
      "Big",
      "a".repeat(65),
    ]) {
      expect((await refused(() => hone.model({ name }))).param).toBe("name");
    }
    expect((await refused(() => hone.model({ name: undefined }))).message).toContain(
      "not undefined",
    );
    expect((await refused(() => hone.model("x"))).message).toMatch(
      /takes an object.*not the text "x"/,
    );
    expect((await refused(() => hone.model())).message).toContain("not undefined");
    for (const value of wrongObjects) await refused(() => hone.model(value));
  });

  it.each<[string, (value: any) => unknown]>([
    ["new Hone()", (value) => new Hone(value)],
    ["gather()'s options", (value) => gather(model, () => 1, [1], value)],
    ["train()'s options", (value) => model.train([], value)],
    ["train()'s batch", (value) => model.train([], { batch: value })],
    ["startTrain()'s options", (value) => model.startTrain([], value)],
    ["batches()'s options", (value) => model.batches([1], value).next()],
    ["compare()'s options", (value) => compare([], [], value)],
    ["evaluationTable()", (value) => evaluationTable(Array.isArray(value) ? null! : value)],
    ["splitScenarios()'s options", (value) => splitScenarios([1, 2], value)],
    ["info()'s options", (value) => model.info(value)],
    ["checkpoint()'s options", (value) => model.at(1).checkpoint(value)],
    ["fillBatch()'s batch", (value) => fillBatch(value, () => Promise.resolve([]))],
    ["openRunLog()'s options", (value) => openRunLog("unwritten", value)],
  ])("%s", async (_, call) => {
    for (const value of wrongObjects) await refused(() => call(value));
  });

  it.each<[string, (value: any) => unknown]>([
    ["train()", (value) => model.train(value)],
    ["startTrain()", (value) => model.startTrain(value)],
    ["compare() before", (value) => compare(value, [])],
    ["compare() after", (value) => compare([], value)],
    ["evaluationTable()", (value) => evaluationTable({ a: value })],
    ["writeGroups()", (value) => writeGroups("unwritten.jsonl", value)],
    ["shuffleRewards()", (value) => shuffleRewards(value, 1)],
  ])("groups of %s", async (_, call) => {
    const wrong = [undefined, null, "x", 5, {}, new Set(), () => 1];
    for (const value of [
      ...wrong,
      [null],
      ["x"],
      [{}],
      [{ trajectories: {} }],
      [{ trajectories: [null] }],
    ]) {
      await refused(() => call(value));
    }
    for (const value of [Promise.resolve([]), [Promise.resolve({})]]) {
      expect((await refused(() => call(value))).message).toMatch(/a promise: await it first/);
    }
  });

  it("the other arguments", async () => {
    for (const value of [undefined, null, "m", {}, hone, Promise.resolve(model)]) {
      await refused(() => gather(value as never, () => 1, [1]));
    }
    for (const value of [undefined, null, {}, true]) {
      await refused(() => gather(model, value as never, [1]));
      await refused(() => readGroups(value as never));
      await refused(() => model.at(value));
    }
    for (const value of [undefined, null, "ab", {}, new Set([1]), Promise.resolve([1])]) {
      await refused(() => gather(model, () => 1, value as never));
      await refused(() => model.batches(value, { groupsPerStep: 1, steps: 1 }).next());
      await refused(() => splitScenarios(value as never));
    }
    for (const signal of [new AbortController(), {}, "x", null]) {
      const options = { signal } as never;
      await refused(() => gather(model, () => 1, [1], options));
      await refused(() => model.train([], options));
      await refused(() => model.info(options));
      await refused(() => hone.model({ name: "m" }, options));
    }
    await refused(() => gather(model, () => 1, [1], { mode: "test" as never }));
    await refused(() => gather(model, () => 1, [1], { onProgress: "x" as never }));
    await refused(() => model.train([], { onEvent: {} }));
    await refused(() => new Hone({ baseURL: 5 as never, apiKey: "k" }));
    await refused(() => new Hone({ baseURL: "http://user:word@h", apiKey: "k" }));
    await refused(() => new Hone({ baseURL: "http://h", apiKey: "k", fetch: "x" as never }));
    await refused(() => shuffleRewards([], undefined as never));
  });

  it.each([
    { maxTokens: Number.NaN },
    { maxTokens: 0 },
    { temperature: Number.NaN },
    { temperature: -1 },
    { n: Number.NaN },
    { n: 65 },
    { seed: Number.NaN },
    { seed: "1" },
  ])("sample()'s %o, which JSON would make null of, or the server another", async (options) => {
    const [name] = Object.keys(options);
    expect((await refused(() => model.sample("a", options))).param).toBe(name);
  });

  it.each([{ metric: "" }, { metric: 5 }, { seed: Number.NaN }, { by: "kind" }])(
    "evaluationTable()'s %o",
    async (options) => {
      await refused(() => evaluationTable({ a: [] }, options as never));
    },
  );

  it("options beside a signal, where there are none", async () => {
    for (const options of [{ singal: 1 }, { pin: true }]) {
      await refused(() => model.info(options));
      await refused(() => model.save(options));
      await refused(() => model.at(1).checkpoint(options));
      await refused(() => model.committed(options));
      await refused(() => hone.model({ name: "m" }, options));
      await refused(() => hone.deleteModel("m", options));
    }
  });

  it("what a model is made with, before it is asked for", async () => {
    const wrong = async (options: object) =>
      (await refused(() => hone.model({ name: "m", ...options }))).message;
    expect(await wrong({ seed: Number.NaN })).toContain("seed must be a finite number, not NaN");
    expect(await wrong({ lora: { r: 0 } })).toBe("hone.model(): lora.r must be at least 1.");
    expect(await wrong({ lora: { rank: 4 } })).toContain('unknown key "rank"');
    expect(await wrong({ create: "no" })).toContain("true or false as create");
    for (const name of [undefined, 5, "Big"]) await refused(() => hone.deleteModel(name));
  });

  it("what names an operation, and what it is to begin at", async () => {
    for (const options of [
      { expectedStep: Number.NaN },
      { expectedStep: "0" },
      { expectedStep: -1 },
      { clientToken: "" },
      { clientToken: 5 },
    ]) {
      const [param] = Object.keys(options);
      expect((await refused(() => model.train([], options))).param).toBe(param);
      expect((await refused(() => model.optimStep(options))).param).toBe(param);
    }
    expect((await refused(() => model.train([]))).message).toBe(
      "train() needs at least one of its groups.",
    );
  });

  it("batches, a run log's folder and batch, another API's model", async () => {
    for (const value of [undefined, null, [], {}, () => 1]) {
      await refused(() => playAhead(model, value as never, () => Promise.resolve([])).next());
    }
    for (const value of [undefined, null, 5, ""]) await refused(() => openRunLog(value as never));
    const given = { baseURL: "http://h/v1", apiKey: "k", model: "m" };
    for (const name of ["apiKey", "model"]) {
      await refused(() => new ComparisonModel({ ...given, [name]: undefined }));
    }
    await refused(() => gather(model, () => 1, [1], { maxExceptions: "0.1" as never }));
  });

  it("an option of train(), in words", async () => {
    const wrong = async (options: object) =>
      (await refused(() => model.train([], options))).message;
    expect(await wrong({ learningRate: "1e-4" })).toBe(
      "train(): learningRate must be a finite number, not a text.",
    );
    expect(await wrong({ learningRate: 0 })).toBe("train(): learningRate must be more than 0.");
    expect(await wrong({ learningRate: Number.NaN })).toContain("must be a finite number, not NaN");
    expect(await wrong({ optimizerSteps: 1.5 })).toContain("optimizerSteps must be a whole number");
    expect(await wrong({ optimizerSteps: 65 })).toContain("optimizerSteps must be at most 64");
    expect(await wrong({ scaleRewards: "rollout" })).toBe(
      'train(): scaleRewards must be one of "none", "group", "batch".',
    );
    expect(await wrong({ allowConstrained: "yes" })).toContain("must be true or false, not a text");
    expect(await wrong({ type: "distill" })).toBe(
      'train(): teacher must be "base" or "given" or an object.',
    );
    expect((await refused(() => model.dpo([], { reference: "sft" }))).message).toBe(
      'dpo(): reference must be "base" or "start" or a finite number.',
    );
  });
});
