import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { everyPoint, randomTrials } from "./plan.ts";
import { makeTemplate, type Template } from "./template.ts";
import { runReference, runTrial, type TrialResult } from "./trial.ts";

/** A few of those that `pnpm faults` tries: each costs two starts of a server. */
const few: [point: string, victim: string, outcome: string][] = [
  ["checkpoint.after-rename", "server", "commit completed"],
  ["worker.file-half@3", "worker", "redone from N"],
  ["ledger.after-append", "server", "begun after the restart"],
];

// Processes are told by what /proc says of them.
describe.skipIf(process.platform !== "linux")("a step that is broken", () => {
  const folder = mkdtempSync(join(tmpdir(), "hone-faults-"));
  let template: Template;
  let reference: TrialResult;
  beforeAll(async () => {
    template = await makeTemplate(join(folder, "template"));
    reference = await runReference(template, folder);
    expect(reference.faults).toEqual([]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

  it.concurrent.each(few)("at %s (%s is killed): %s", async (...given) => {
    const [point, victim, outcome] = given;
    const trial = everyPoint.find((entry) => entry.name === point && entry.victim === victim);
    if (!trial) throw new Error(`there is no trial of ${point}`);
    const result = await runTrial(template, trial, folder, reference.files);
    expect(result.faults).toEqual([]);
    expect(result.outcome).toContain(outcome);
  });

  it.concurrent("at a random instant", async () => {
    // The first of those that `pnpm faults` tries by default, so that a failure can be looked at again.
    const [trial] = randomTrials(1, 1, reference.workMs);
    if (!trial) throw new Error("there is no trial");
    const { faults } = await runTrial(template, trial, folder, reference.files);
    expect(faults, `${trial.victim}, ${trial.name}`).toEqual([]);
  });
});
