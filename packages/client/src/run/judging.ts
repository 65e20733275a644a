import { setTimeout as delay } from "node:timers/promises";
import { HoneError, type TrajectoryGroup } from "@hone/core";
import { failedMark } from "../training/compared.ts";
import { warn } from "../warn.ts";

/**
 * How long a judge that failed is left alone before it is asked again: one that has judged before may be away for a
 * moment, and one that never has is mostly a wrong name or key. @unit s
 */
export const judgeWaits = { before: [5, 60, 300], never: [5] } as const;

/** So many groups, all failed, are a judge that is down; of fewer each may have failed by itself. */
const leastDown = 4;

/** Why the judge is down, in the words of one group: it failed at all groups. Null where it is not. */
export function judgeIsDown(groups: readonly TrajectoryGroup[]): string | null {
  const asked = groups.filter(({ trajectories }) => trajectories.length > 0);
  if (asked.length < leastDown) return null;
  if (!asked.every((group) => failedMark(group) === "judge_failed")) return null;
  return asked.flatMap(({ logs }) => logs.at(-1) ?? []).at(-1) ?? "it gave no reason.";
}

/**
 * Scores the groups of a batch. A judge that fails at all of them is asked again after a while about the same rollouts.
 * One that stays down ends the run: the rollouts are kept and judged in its next start, and nothing is trained.
 */
export async function judgedGroups<Scored extends { groups: TrajectoryGroup[] }>(
  score: () => Promise<Scored>,
  { label, waits, signal }: { label: string; waits: readonly number[]; signal: AbortSignal },
): Promise<Scored> {
  for (let tries = 0; ; tries += 1) {
    const scored = await score();
    const why = judgeIsDown(scored.groups);
    if (why === null) return scored;
    const what = `The judge failed at all ${scored.groups.length} groups of ${label.replace(/ (playing|filling)$/, "")}: ${why}`;
    const wait = waits[tries];
    if (wait === undefined) {
      throw new HoneError(
        `${what} Nothing was trained on them, and the rollouts are kept. See to the judge and start the run again: they are judged then.`,
        { code: "judge_failed" },
      );
    }
    warn(`${what} It is asked about them again in ${wait} s.`);
    await delay(wait * 1000, undefined, { signal });
  }
}
