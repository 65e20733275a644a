import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openTotals } from "./totals.ts";

it("adds up over the starts of a run, what was saved of each", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-totals-"));
  try {
    let now = 0;
    const open = () => openTotals(join(folder, "totals.json"), () => now);
    const first = await open();
    // An evaluation, then a step.
    now += 1000;
    first.stepBegins();
    now += 3000;
    first.stepEnded();
    await first.save();
    // It is killed in the middle of the next step.
    first.stepBegins();
    now += 5000;

    const second = await open();
    second.stepBegins();
    now += 2000;
    second.stepEnded();
    now += 500;
    const totals = { starts: 2, seconds: 6.5, trainingSeconds: 5 };
    expect(second.soFar()).toEqual(totals);
    await second.save();
    expect((await open()).soFar()).toEqual({ ...totals, starts: 3 });
  } finally {
    await rm(folder, { recursive: true });
  }
});
