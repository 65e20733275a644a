import type { TrajectoryGroup } from "@hone/core";
import { expect, it, onTestFinished, vi } from "vitest";
import { group } from "../testing/run-log.ts";
import { judgedGroups, judgeIsDown } from "./judging.ts";

const failed = (): TrajectoryGroup => ({
  ...group([null, null]),
  ...{ metadata: { failed: "judge_failed" }, logs: ["RULER: it was refused."] },
});
const groups = (of: () => TrajectoryGroup, count = 4) => Array.from({ length: count }, of);
const signal = new AbortController().signal;

function warnings() {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  return () => emit.mock.calls.map(([message]) => String(message));
}

it("a judge is down that failed at all of several groups, and says why", () => {
  expect(judgeIsDown(groups(failed))).toBe("RULER: it was refused.");
  expect(judgeIsDown(groups(failed, 3))).toBeNull();
  expect(judgeIsDown([...groups(failed), group([0, 1])])).toBeNull();
  // One whose rollouts have all failed was not judged.
  expect(judgeIsDown([...groups(failed), { ...failed(), trajectories: [], metadata: {} }])).toBe(
    "RULER: it was refused.",
  );
});

it("a judge that was away for a moment is asked again about the same groups", async () => {
  const said = warnings();
  const answers = [groups(failed), groups(() => group([0, 1]))];
  const waits = [0, 0];
  const scored = await judgedGroups(async () => ({ groups: answers.shift()! }), {
    ...{ label: "step 3/10", waits, signal },
  });
  expect(scored.groups[0]?.trajectories[1]?.reward).toBe(1);
  expect(said()).toEqual([
    expect.stringMatching(/all 4 groups of step 3\/10: RULER: it was refused. It is asked/),
  ]);
});

it("one that stays down ends the run, and a stop ends the wait", async () => {
  warnings();
  const down = async () => ({ groups: groups(failed) });
  const how = { label: "step 3/10", signal };
  await expect(judgedGroups(down, { ...how, waits: [0] })).rejects.toMatchObject({
    code: "judge_failed",
    message: expect.stringMatching(/rollouts are kept.*start the run again/) as string,
  });
  const stop = new AbortController();
  const waiting = judgedGroups(down, { ...how, waits: [60], signal: stop.signal });
  setTimeout(() => stop.abort(), 5);
  await expect(waiting).rejects.toThrow(/abort/i);
});
