import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TrajectoryGroup } from "@hone/core";
import { describe, expect, it } from "vitest";
import { compare, evaluationTable } from "./compare.ts";
import { readGroups, writeGroups } from "../training/group-files.ts";

function group(scenario: unknown, scores: number[]): TrajectoryGroup {
  return {
    id: "grp_1",
    scenario,
    trajectories: scores.map((score) => ({
      rolloutId: "ro_1",
      model: "m",
      policy: "m@0",
      messages: [{ role: "user", content: "line\nbreak" }],
      tools: null,
      histories: [],
      reward: score,
      metrics: { score },
      metadata: { kind: "x", none: null },
      logs: [],
      usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
      startedAt: 1,
      durationMs: 1,
    })),
    exceptions: [{ rolloutId: null, type: "E", message: "m", duringCall: 2 }],
    metadata: {},
    metrics: {},
    logs: [],
  };
}

describe("group files", () => {
  it("give back what was written, and leave no partial file", async () => {
    const folder = await mkdtemp(join(tmpdir(), "hone-groups-"));
    try {
      const path = join(folder, "deep", "step-1.jsonl");
      const groups = [group({ seed: 1 }, [1, 2]), group("s", []), group(undefined, [1])];
      await writeGroups(path, groups);
      expect(await readGroups(path)).toEqual(groups);
      expect(await readdir(join(folder, "deep"))).toEqual(["step-1.jsonl"]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it.runIf(existsSync("/proc/self"))("are refused where no folder can be made", async () => {
    await expect(writeGroups("/proc/hone/step-1.jsonl", [])).rejects.toMatchObject({
      ...{ code: "invalid_config", param: "path" },
      message: expect.stringMatching(
        /^The folder \/proc\/hone cannot be made .* Name another one\.$/,
      ),
    });
  });

  it("are read of all steps of a run, in their order, and of no evaluation", async () => {
    const folder = await mkdtemp(join(tmpdir(), "hone-groups-"));
    try {
      const put = (name: string, score: number) =>
        writeGroups(join(folder, "trajectories", name), [group(name, [score])]);
      await put("step-10000.jsonl", 3);
      await put("step-0002.jsonl", 2);
      await put("step-0001.jsonl", 1);
      await put("eval-step-0001.jsonl", 9);
      for (const path of [folder, join(folder, "trajectories")]) {
        const read = await readGroups(path);
        expect(read.map(({ trajectories }) => trajectories[0]?.reward)).toEqual([1, 2, 3]);
      }
      await rm(join(folder, "trajectories"), { recursive: true });
      await expect(readGroups(folder)).rejects.toThrow(/holds no step of a run .*Name the folder/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("hold no half of a character: other languages could not print it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "hone-groups-"));
    try {
      const path = join(folder, "x.jsonl");
      const half = "😀".slice(0, 1);
      await writeGroups(path, [group({ [half]: `a${half}` }, [1])]);
      const [read] = await readGroups(path);
      expect(read!.scenario).toEqual({ "\ufffd": "a\ufffd" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("name the line that is wrong", async () => {
    const folder = await mkdtemp(join(tmpdir(), "hone-groups-"));
    try {
      const path = join(folder, "x.jsonl");
      await writeFile(path, `${JSON.stringify(group(1, [1]))}\n{"id": 3`);
      await expect(readGroups(path)).rejects.toThrow(/x\.jsonl:2 is not JSON/);
      await writeFile(path, `{"id": "g"}\n`);
      await expect(readGroups(path)).rejects.toThrow(/x\.jsonl:1 is not a trajectory group/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("compare", () => {
  const before = [1, 2, 3, 4, 5, 6].map((n) => group({ n }, [10 * n]));
  const after = [6, 5, 4, 3, 2, 1].map((n) => group({ n }, [10 * n + 2, 10 * n + n - 2]));

  it("pairs by scenario: what differs between scenarios does not widen the interval", () => {
    const result = compare(before, after, { metric: "score" });
    // Differences are n/2 for n = 1…6: mean 1.75, standard error .38; of the scores it would be 7.6.
    expect(result).toMatchObject({ pairs: 6, before: 35, difference: 1.75, unpaired: 0 });
    expect(result.low).toBeGreaterThan(0.9);
    expect(result.low).toBeLessThan(1.3);
    expect(result.high).toBeGreaterThan(2.2);
    expect(result.high).toBeLessThan(2.6);
  });

  it("gives the same interval for the same seed", () => {
    expect(compare(before, after)).toEqual(compare(before, after));
    const others = [1, 2, 3].map((seed) => compare(before, after, { seed, resamples: 99 }).low);
    expect(new Set(others).size).toBeGreaterThan(1);
  });

  it("leaves out what has no pair, and says how many", () => {
    expect(compare(before.slice(1), after.slice(1))).toMatchObject({ pairs: 4, unpaired: 2 });
  });

  it("refuses a metric that no pair has", () => {
    expect(() => compare(before, after, { metric: "scroe" })).toThrow(/"scroe" on both sides/);
  });

  it("refuses a single pair, and gives no interval of a few", () => {
    const one = [group(1, [0])];
    expect(() => compare(one, [group(1, [1])])).toThrow(/one pair says nothing/);
    const all = (reward: number, of: number) =>
      Array.from({ length: of }, (_, n) => group(n, [reward]));
    for (const few of [2, 5]) {
      expect(compare(all(0, few), all(1, few))).toMatchObject({
        difference: 1,
        low: -Infinity,
        high: Infinity,
      });
    }
    expect(compare(all(0, 6), all(1, 6))).toMatchObject({ low: 1, high: 1 });
  });

  it.each([0, 39, 1.5, Number.NaN])("refuses %s resamples", (resamples) => {
    const error = { code: "invalid_config", param: "resamples" };
    expect(() => compare(before, after, { resamples })).toThrow(expect.objectContaining(error));
    expect(() => evaluationTable({ before }, { resamples })).toThrow(
      expect.objectContaining(error),
    );
  });
});

describe("evaluationTable", () => {
  const scenarios = [1, 2, 3, 4, 5, 6].map((n) => ({ n, kind: n % 2 ? "odd" : "even" }));
  const base = scenarios.map((scenario) => group(scenario, [scenario.n]));
  const trained = scenarios.map((scenario) => group(scenario, [scenario.n + (scenario.n % 2)]));
  const other = scenarios.slice(0, 2).map((scenario) => group(scenario, [9]));

  it("sets evaluations side by side, in all and by slice", () => {
    const rows = evaluationTable(
      { base, trained, other },
      { metric: "score", by: ({ kind }: { kind: string }) => kind },
    );
    expect(
      rows.map(({ name, slice, scenarios: count, mean, difference }) => [
        `${slice} ${name}`,
        count,
        mean,
        difference,
      ]),
    ).toEqual([
      ["all base", 6, 3.5, null],
      ["all trained", 6, 4, 0.5],
      ["all other", 2, 9, 7.5],
      ["odd base", 3, 3, null],
      ["odd trained", 3, 4, 1],
      ["odd other", 1, 9, 8],
      ["even base", 3, 4, null],
      ["even trained", 3, 4, 0],
      ["even other", 1, 9, 7],
    ]);
    for (const { low, high, mean, differenceLow, difference } of rows) {
      expect(low <= mean && mean <= high).toBe(true);
      if (difference !== null) expect(differenceLow).toBeLessThanOrEqual(difference);
    }
  });

  it("leaves out what has no value", () => {
    const rows = evaluationTable({ base, none: [group({ n: 1 }, [])] }, { metric: "score" });
    expect(rows.map(({ name }) => name)).toEqual(["base"]);
  });

  it("compares with the first one written, whatever the names are", () => {
    const refused = { code: "invalid_config", param: "evaluations.5" };
    expect(() => evaluationTable({ base, 5: trained, 10: other })).toThrow(
      expect.objectContaining(refused),
    );
    const rows = evaluationTable(
      [
        ["base", base],
        ["5", trained],
        ["again", base],
      ],
      { metric: "score" },
    );
    expect(rows.map(({ name, difference }) => [name, difference])).toEqual([
      ["base", null],
      ["5", 0.5],
      ["again", 0],
    ]);
    expect(() => evaluationTable([])).toThrow(/at least one evaluation/);
  });

  it("tells a slice that is called all from all", () => {
    const rows = evaluationTable({ base }, { by: ({ n }: { n: number }) => (n > 2 ? "all" : "x") });
    expect(rows.map(({ slice, scenarios: count }) => [slice, count])).toEqual([
      ["all", 6],
      ["x", 2],
      ['"all"', 4],
    ]);
    expect(rows[1]).toMatchObject({ mean: 1.5, low: -Infinity, high: Infinity });
  });
});
