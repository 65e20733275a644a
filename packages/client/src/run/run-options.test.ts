import { expect, it } from "vitest";
import { readSettings } from "./run-options.ts";
import { defineTask, readOwnSettings } from "./task.ts";
import { trainRun } from "./train-run.ts";

const task = { heldOut: [1, 2, 3] };

it("takes the task's defaults, and what is given over them", () => {
  const options = { steps: 4, train: { normalizerTokens: 32, warmupSteps: 1 } };
  const settings = readSettings({ ...task, options }, { steps: 7, train: { warmupSteps: 0 } });
  expect(settings).toMatchObject({ steps: 7, groupSize: 8, heldOut: 3 });
  expect(settings.train).toEqual({ normalizerTokens: 32, warmupSteps: 0 });
});

it("leaves out what only the task's own objective has, where another one is chosen", () => {
  const options = { train: { normalizerTokens: 32, warmupSteps: 1 } };
  const trained = (train: object) => readSettings({ ...task, options }, { train }).train;
  expect(trained({ type: "dapo" })).toEqual({ type: "dapo", warmupSteps: 1 });
  expect(trained({ type: "dr_grpo" })).toEqual({ type: "dr_grpo", ...options.train });
  expect(() => trained({ type: "dapo", normalizerTokens: 3 })).toThrow(/normalizerTokens/);
  expect(() => trained({ type: "ppo" })).toThrow(/type is wrong: it is one of/);
});

it.each<[Record<string, unknown>, RegExp]>([
  [{ normalizerToken: 32 }, /normalizerToken/],
  [{ learningRate: 1e-3 }, /Give it as learningRate \(--lr\)/],
  [{ schedule: { type: "linear" } }, /Give it as schedule \(--schedule\)/],
  [{ clientToken: "a" }, /clientToken/],
  [{ normalizerTokens: 0 }, /normalizerTokens/],
])("refuses the training step's %j before anything is played", (train, message) => {
  expect(() => readSettings(task, { train })).toThrow(message);
  expect(() => readSettings({ ...task, options: { train } }, {})).toThrow(message);
});

it.each([-1, 0.5, Infinity, Number.NaN, "900"])("waits no %o ms for a server", (serverWaitMs) => {
  expect(() => readSettings(task, { serverWaitMs } as object)).toThrow(
    expect.objectContaining({ code: "invalid_config", param: "serverWaitMs" }),
  );
});

it("takes the values of the task's own settings that the task can play", () => {
  const own = {
    settings: { size: 3, target: 64 },
    checkSettings({ size }: { size: number }) {
      if (size > 26) throw new Error(`size is at most 26, not ${size}.`);
    },
  };
  expect(readOwnSettings(own, { size: 4 })).toEqual({ size: 4, target: 64 });
  expect(() => readOwnSettings(own, { size: 27 })).toThrow(
    expect.objectContaining({ code: "invalid_config", message: "size is at most 26, not 27." }),
  );
  expect(() => readOwnSettings(own, { sice: 4 } as object)).toThrow(/no option "sice"/);
});

it.each<[Record<string, unknown>, string]>([
  [{ size: "4" }, "settings.size"],
  [{ size: Number.NaN }, "settings.size"],
  [{ shaped: 1 }, "settings.shaped"],
  [{ words: null }, "settings.words"],
])("a setting of the task's own is of its default's kind: not %o", (given, param) => {
  const own = { settings: { size: 3, shaped: false, words: "few" } };
  expect(() => readOwnSettings(own, given as object)).toThrow(
    expect.objectContaining({ code: "invalid_config", param }),
  );
  expect(readOwnSettings(own, { size: undefined } as object)).toEqual(own.settings);
});

it.each([{ a: {} }, { a: null }, { a: undefined }, "few"])(
  "a task's settings are texts, numbers, true or false: not %o",
  (settings) => {
    const wrong = { train: [1], heldOut: [2, 3], rollout: () => 1, settings };
    expect(() => defineTask(wrong as never)).toThrow(/needs settings, an object of texts/);
  },
);

it.each([
  { train: null },
  { schedule: "linear" },
  { goals: 3 },
  { budget: [] },
  { heldOut: 2.5 },
  { heldOut: "3" },
  { heldOut: Number.NaN },
])("refuses %o", (given) => {
  const named = expect.objectContaining({ name: "HoneError", param: Object.keys(given)[0] });
  expect(() => readSettings(task, given as never)).toThrow(named);
  expect(() => readSettings({ ...task, options: given as never }, {})).toThrow(named);
});

it("refuses what trainRun() cannot use before it looks for a server", async () => {
  const run = (options: object) =>
    trainRun(
      { train: [1], heldOut: [2, 3], rollout: () => 1 },
      {
        ...{ name: "m", out: "unwritten", ungated: true },
        ...options,
      },
    );
  for (const [options, param] of [
    [{ name: undefined }, "name"],
    [{ out: 5 }, "out"],
    [{ ungated: "no" }, undefined],
    [{ shuffleRewards: "no" }, "shuffleRewards"],
    [{ acceptChange: 1 }, "acceptChange"],
    [{ hone: {} }, "hone"],
    [{ compare: "openai/x" }, "compare"],
    [{ compare: ["openai/x"] }, "compare[0]"],
    [{ overlap: null }, undefined],
    [{ signal: {} }, "signal"],
    [{ onEvent: 1 }, "onEvent"],
  ] as const) {
    const error: unknown = await run(options).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: "HoneError" });
    if (param !== undefined) expect(error).toMatchObject({ param });
  }
});

it.each(["given", { feedback: true }] as const)("has no place for the teacher %j", (teacher) => {
  expect(() => readSettings(task, { train: { type: "distill", teacher } })).toThrow(
    expect.objectContaining({ code: "invalid_config", param: "train.teacher" }),
  );
});

it("fills no steps of an objective that trains equal groups too", () => {
  const train = { type: "distill", teacher: "base" } as const;
  const refused = expect.objectContaining({ code: "invalid_config", param: "fill" });
  expect(() => readSettings(task, { train, fill: true })).toThrow(refused);
  expect(readSettings(task, { train }).fill).toBe(false);
});

it("plays no further ahead than rollouts may be old", () => {
  const train = { maxStaleness: 1 };
  expect(readSettings(task, { train, overlap: true }).overlap).toBe(true);
  for (const [given, param] of [
    [{ train, overlap: { ahead: 2 } }, "maxStaleness"],
    [{ train: { maxStaleness: 0 }, overlap: true }, "maxStaleness"],
    [{ overlap: { ahead: 0 } }, "ahead"],
  ] as const) {
    const refused = expect.objectContaining({ code: "invalid_config", param });
    expect(() => readSettings(task, given)).toThrow(refused);
  }
  expect(() => readSettings(task, { overlap: { batches: 2 } as object })).toThrow(/batches/);
});
