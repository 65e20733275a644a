import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { modelNamePattern } from "@hone/core";
import { afterEach, beforeEach, expect, it } from "vitest";
import { findRun, keepRun, newRun, requireWritable } from "./run-folders.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hone-run-folders-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

it("finds a run again with its name and its options, and refuses to begin another over it", () => {
  const out = join(folder, "one");
  const begun = newRun("/x/Inbox/src/my task.ts", { out }, ["--steps", "3"]);
  const { name } = begun;
  expect(existsSync(out)).toBe(false);
  keepRun(begun);
  expect(name).toMatch(/^my-task-\d{4}-\d\d-\d\dt/);
  expect(name).toMatch(modelNamePattern);
  expect(findRun("/x/elsewhere.ts", { out })).toMatchObject({ name, out, args: ["--steps", "3"] });
  expect(() => newRun("/x/t.ts", { out }, [])).toThrow(/holds a run\. Go on with it by --resume/);
  expect(() => findRun("/x/t.ts", { out: join(folder, "two") })).toThrow(
    /There is no run in .*two/,
  );
});

it("says which run is damaged, and goes on with another one", () => {
  const before = process.cwd();
  process.chdir(folder);
  try {
    for (const name of ["whole", "cut", "other"]) {
      keepRun(newRun("/x/t.ts", { name }, []));
    }
    writeFileSync(join(folder, "runs", "cut", "command.json"), '{"task": "/x/t.ts", "na');
    writeFileSync(join(folder, "runs", "other", "command.json"), "[]");
    expect(findRun("/x/t.ts", {}).name).toBe("whole");
    expect(() => findRun("/x/t.ts", { out: join("runs", "cut") })).toThrow(
      expect.objectContaining({
        code: "invalid_config",
        message: expect.stringMatching(/cut\/command\.json is not what a run wrote/) as string,
      }),
    );
  } finally {
    process.chdir(before);
  }
});

it("keeps the name that is given", () => {
  expect(newRun("/x/t.ts", { out: folder, name: "mine" }, []).name).toBe("mine");
});

it("goes on with a run under its own name alone", () => {
  const run = newRun("/x/t.ts", { out: folder, name: "mine" }, []);
  keepRun(run);
  expect(findRun("/x/t.ts", { out: folder, name: "mine" })).toEqual(run);
  expect(() => findRun("/x/t.ts", { out: folder, name: "other" })).toThrow(
    /trains the model mine, not other\. Leave --name out .* begin a run of other/,
  );
});

it("refuses a place where no folder can be, and makes nothing", async () => {
  writeFileSync(join(folder, "file"), "");
  for (const out of [join(folder, "file"), join(folder, "file", "deep", "run")]) {
    await expect(requireWritable(out)).rejects.toThrow(/file is no folder\. Name another folder\./);
  }
  await requireWritable(join(folder, "deep", "run"));
  expect(readdirSync(folder)).toEqual(["file"]);
});

it.runIf(existsSync("/proc/self"))("refuses a place where even root can make nothing", async () => {
  for (const out of ["/proc/hone-run", "/proc/self"]) {
    await expect(requireWritable(out)).rejects.toMatchObject({
      ...{ code: "invalid_config", param: "out" },
      message: expect.stringMatching(/\/proc\S* may not be written into\. Name another folder\.$/),
    });
  }
});
