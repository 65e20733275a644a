import type { ChatMessage, TrajectoryGroup } from "@hone/core";
import { keyOf, type JudgeCase } from "./judge-case.ts";
import { rankAccuracyOf } from "../doctor/statistics.ts";

/** Two answers to one conversation, of which the first is better. */
export interface LabelledPair {
  input: readonly ChatMessage[];
  better: string;
  worse: string;
}

/** A preference is a pair, and so are two answers to one conversation with different labels. Ties are none. */
export function pairsOf(cases: readonly JudgeCase[]): { pairs: LabelledPair[]; ties: number } {
  const pairs: LabelledPair[] = [];
  let ties = 0;
  for (const one of cases) {
    if (one.mode === "pointwise") continue;
    const { input, answers, preference } = one;
    if (preference === "tie") ties += 1;
    else {
      const [better, worse] = preference === "A" ? answers : [answers[1], answers[0]];
      pairs.push({ input, better, worse });
    }
  }
  for (const answers of byConversation(cases).values()) {
    for (const [at, first] of answers.entries()) {
      for (const second of answers.slice(at + 1)) {
        if (first.mode !== "pointwise" || second.mode !== "pointwise") continue;
        if (first.label === second.label) {
          ties += 1;
          continue;
        }
        const [better, worse] = first.label > second.label ? [first, second] : [second, first];
        pairs.push({ input: first.input, better: better.answer, worse: worse.answer });
      }
    }
  }
  return { pairs, ties };
}

function byConversation(cases: readonly JudgeCase[]): Map<string, JudgeCase[]> {
  const found = new Map<string, JudgeCase[]>();
  for (const one of cases) {
    const key = keyOf(one);
    found.set(key, [...(found.get(key) ?? []), one]);
  }
  return found;
}

/**
 * How a pointwise judge orders the answers to one conversation: a group for each conversation whose labels differ,
 * with the share of its pairs in the right order, ties of the judge counting half. An answer that could not be read
 * ties with none: its pairs are wrong.
 */
export function orderedGroups(groups: readonly TrajectoryGroup[]): TrajectoryGroup[] {
  const found = new Map<string, { label: number; said: number | null; group: TrajectoryGroup }[]>();
  for (const group of groups) {
    const one = group.scenario as JudgeCase;
    const [trajectory] = group.trajectories;
    if (one.mode !== "pointwise" || !trajectory) continue;
    const key = keyOf(one);
    const said = trajectory.metrics["judge/score"] ?? null;
    found.set(key, [...(found.get(key) ?? []), { label: one.label, said, group }]);
  }
  return [...found].flatMap(([key, answers]) => {
    const labels = answers.map(({ label }) => label);
    if (new Set(labels).size < 2) return [];
    const read = answers.filter(({ said }) => said !== null);
    const all = pairCount(labels);
    const counted = pairCount(read.map(({ label }) => label));
    const accuracy =
      counted === 0
        ? 0
        : ((rankAccuracyOf(
            read.map(({ said }) => said as number),
            read.map(({ label }) => label),
          ) ?? 0) *
            counted) /
          all;
    const [first] = answers;
    const trajectory = first!.group.trajectories[0]!;
    const metrics = { "judge/pair_accuracy": accuracy };
    return [
      {
        ...first!.group,
        scenario: { conversation: key },
        trajectories: [{ ...trajectory, reward: accuracy, metrics }],
      },
    ];
  });
}

/** Pairs whose labels differ. */
function pairCount(labels: readonly number[]): number {
  let count = 0;
  for (const [at, label] of labels.entries()) {
    count += labels.slice(at + 1).filter((other) => other !== label).length;
  }
  return count;
}
