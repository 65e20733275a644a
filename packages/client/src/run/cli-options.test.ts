import { expect, it, vi } from "vitest";
import { readCommandLine } from "./cli-options.ts";
import { readSettings } from "./run-options.ts";
import { defineTask } from "./task.ts";

const task = defineTask({
  ...{ train: [1], heldOut: [2, 3], rollout: () => 0 },
  settings: { boardSize: 3, shaped: false, strict: true, words: "few" },
});

const settingsOf = (...args: string[]) => readCommandLine("t.ts", task, args).run.settings;

it("has an option for each setting of the task, with its default", () => {
  expect(settingsOf()).toEqual(task.settings);
  expect(settingsOf("--board-size", "4", "--words", "many")).toMatchObject({
    ...{ boardSize: 4, words: "many" },
  });
});

it("switches fill and curriculum on and off; what is only switched on is as the task has it", () => {
  const read = (...args: string[]) => {
    const { fill, curriculum } = readCommandLine("t.ts", task, args).run;
    return [fill, curriculum];
  };
  expect(read()).toEqual([undefined, undefined]);
  expect(read("--fill", "--curriculum")).toEqual([true, true]);
  expect(read("--fill", "5", "--no-curriculum")).toEqual([{ maxFactor: 5 }, false]);
  expect(read("--fill", "5", "--no-fill")[0]).toBe(false);
  const own = { options: { fill: { maxFactor: 4 }, curriculum: { floor: 0.5 } }, heldOut: [] };
  expect(readSettings(own, { fill: true, curriculum: true })).toMatchObject(own.options);
  expect(readSettings(own, { fill: false, curriculum: false })).toMatchObject({
    ...{ fill: false, curriculum: false },
  });
});

it("plays ahead by --overlap, as far as it says", () => {
  const read = (...args: string[]) => readCommandLine("t.ts", task, args).run.overlap;
  expect([
    read(),
    read("--overlap"),
    read("--overlap", "2"),
    read("--overlap", "--no-overlap"),
  ]).toEqual([undefined, true, { ahead: 2 }, false]);
});

it("waits for a server as many seconds as it is told, or as the task says", () => {
  const read = (options: object, ...args: string[]) =>
    readCommandLine("t.ts", { ...task, options }, args).run.serverWaitMs;
  expect(read({})).toBe(900_000);
  expect(read({ serverWaitMs: 1001 })).toBe(1001);
  expect(read({ serverWaitMs: 1500 }, "--server-wait", "0")).toBe(0);
  expect(read({}, "--server-wait", "3600")).toBe(3_600_000);
});

it("switches a setting on and off, so that the options of a run that goes on can take back earlier ones", () => {
  expect(settingsOf("--shaped")).toMatchObject({ shaped: true });
  expect(settingsOf("--shaped", "--no-shaped")).toMatchObject({ shaped: false });
  expect(settingsOf("--no-strict")).toMatchObject({ strict: false });
  expect(settingsOf("--no-strict", "--strict")).toMatchObject({ strict: true });
  const ungated = (...args: string[]) => readCommandLine("t.ts", task, args).run.ungated;
  expect([ungated(), ungated("--ungated"), ungated("--ungated", "--no-ungated")]).toEqual([
    ...[false, true, false],
  ]);
});

it.each([
  ["--compare-tokens", "5"],
  ["--compare-key-env", "MINE"],
])("%s without another model would do nothing", (...args) => {
  const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  const exit = vi.spyOn(process, "exit").mockImplementation(() => {
    throw new Error("it ended");
  });
  try {
    expect(() => readCommandLine("t.ts", task, args)).toThrow("it ended");
    expect(said.mock.calls.join("")).toContain(`${args[0]} is of --compare. Add that`);
    const left = readCommandLine("t.ts", task, [...args, "--compare", "none"]);
    expect(left.run.compare).toEqual([]);
    // Of a run that goes on, whose own options name the model.
    expect(readCommandLine("t.ts", task, ["--resume", ...args]).resume).toBe(true);
  } finally {
    said.mockRestore();
    exit.mockRestore();
  }
});
