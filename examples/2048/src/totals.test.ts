import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openTotals } from "./totals.ts";

it("adds up over the starts of a run, what was saved of each", async () => {
  const folder = await mkdtemp(join(tmpdir(), "hone-totals-"));
  try {
    let now = 0;
    const take = (ms: number) => async () => void (now += ms);
    const open = () => openTotals(join(folder, "totals.json"), () => now);
    const first = await open();
    await first.clock.time("playing", take(1000));
    first.addTurns(10);
    await first.save();
    // It is killed in the middle of this.
    await first.clock.time("playing", take(5000));

    const second = await open();
    await second.clock.time("playing", take(2000));
    await second.clock.time("training", take(500));
    second.addTurns(5);
    await second.save();
    const totals = {
      starts: 2,
      seconds: 3.5,
      stages: { playing: 3, training: 0.5 },
      turns: 15,
    };
    expect(second.soFar()).toEqual(totals);
    expect((await open()).soFar()).toEqual({ ...totals, starts: 3 });
  } finally {
    await rm(folder, { recursive: true });
  }
});
