import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { policyOfRun } from "./run-policy.ts";

let run: string;
beforeEach(async () => {
  run = await mkdtemp(join(tmpdir(), "hone-run-policy-"));
});
afterEach(() => rm(run, { recursive: true }));

it("gives the policy of a run that is through, and says what a run that is not needs", async () => {
  await expect(policyOfRun(run)).rejects.toThrow(/is no folder of a quickstart's run/);
  await mkdir(join(run, "server"));
  await expect(policyOfRun(run)).rejects.toThrow(
    /is not through: .*`npm run quickstart -- --resume \S+`, and ask its policy then\.$/,
  );
  await writeFile(join(run, "summary.json"), JSON.stringify({ policy: "inbox-1@24" }));
  expect(await policyOfRun(run)).toEqual({ policy: "inbox-1@24", data: join(run, "server") });
  expect(await readdir(run)).toEqual(["server", "summary.json"]);
});
