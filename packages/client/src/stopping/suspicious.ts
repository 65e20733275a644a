import { printableLine, type Trajectory, type TrajectoryGroup } from "@hone/core";
import { heldOutMetric, isSaidMost } from "./step-figures.ts";
import type { AlarmCode } from "./stop-options.ts";
import { isDegenerate, lastAnswer, sameAnswerKey } from "./texts.ts";

/** A rollout that raised an alarm, and one of the same scenario that did not. */
export interface SuspiciousPair {
  scenario: unknown;
  suspicious: Trajectory;
  /** Null where the whole group is alike. */
  other: Trajectory | null;
}

const shownPairs = 6;

/** The rollouts of a step that raised these alarms, the most telling first. */
export function suspiciousRollouts(
  groups: readonly TrajectoryGroup[],
  codes: readonly AlarmCode[],
): Trajectory[] {
  const all = groups.flatMap(({ trajectories }) => trajectories);
  const isSame = isSaidMost(all);
  const most = Math.max(...all.flatMap(({ reward }) => reward ?? []));
  const chosen = all.filter((one) =>
    codes.some((code) => {
      if (code === "same_output") return isSame(one);
      if (code === "degenerate_text") return isDegenerate(one);
      return one.reward !== null && one.reward >= most - 1e-9;
    }),
  );
  const judged = (one: Trajectory) => one.metrics[heldOutMetric] ?? 0;
  return chosen.toSorted(
    (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || judged(a) - judged(b),
  );
}

/** Some of them beside others of their scenarios: of as many scenarios as can be. */
export function sideBySide(
  groups: readonly TrajectoryGroup[],
  suspicious: readonly Trajectory[],
): SuspiciousPair[] {
  const chosen = new Set(suspicious);
  return groups
    .flatMap((group): SuspiciousPair[] => {
      const first = suspicious.find((one) => group.trajectories.includes(one));
      if (!first) return [];
      const key = keyOf(first);
      const others = group.trajectories.filter((one) => keyOf(one) !== key);
      const other = others.find((one) => !chosen.has(one)) ?? others[0] ?? null;
      return [{ scenario: group.scenario, suspicious: first, other }];
    })
    .slice(0, shownPairs);
}

const keyOf = (one: Trajectory) => sameAnswerKey(lastAnswer(one) ?? "");

/** For a terminal: two columns of so many characters. */
export function sideBySideText(pairs: readonly SuspiciousPair[], width = 46): string {
  return pairs
    .flatMap(({ scenario, suspicious, other }) => [
      `scenario: ${cut(printableLine(JSON.stringify(scenario ?? null)), 2 * width)}`,
      ...columns(
        [headOf("suspicious", suspicious), ...wrapped(textOf(suspicious), width)],
        other
          ? [headOf("other", other), ...wrapped(textOf(other), width)]
          : ["(all others of its group said the same)"],
        width,
      ),
      "",
    ])
    .join("\n");
}

function headOf(what: string, one: Trajectory): string {
  const judged = one.metrics[heldOutMetric];
  const parts = [
    `reward ${one.reward ?? "none"}`,
    ...(judged === undefined ? [] : [`held out ${judged}`]),
  ];
  return `${what}: ${parts.join(", ")}, ${one.rolloutId ?? "no id"}`;
}

const textOf = (one: Trajectory) => lastAnswer(one) ?? "(nothing)";

/** A model's lines cannot be taken for ours: each is made printable. */
function wrapped(text: string, width: number): string[] {
  const lines = text.split("\n").flatMap((line) => {
    const shown = printableLine(line);
    return Array.from({ length: Math.max(1, Math.ceil(shown.length / width)) }, (_, at) =>
      shown.slice(at * width, (at + 1) * width),
    );
  });
  return lines.length <= mostLines ? lines : [...lines.slice(0, mostLines - 1), "…"];
}

const mostLines = 8;

function columns(left: readonly string[], right: readonly string[], width: number): string[] {
  const wide = Math.max(width, ...left.map(({ length }) => length));
  return Array.from({ length: Math.max(left.length, right.length) }, (_, at) =>
    `  ${(left[at] ?? "").padEnd(wide)} | ${right[at] ?? ""}`.trimEnd(),
  );
}

function cut(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}
