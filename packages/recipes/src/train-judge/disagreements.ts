import { writeFile } from "node:fs/promises";
import { HoneError, refuseUnknownOptions, requireNumber } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { readGroups } from "@hone/client";
import { completionText } from "@hone/ruler/rewards";
import type { JudgeMode } from "./judge-case.ts";
import type { Preference } from "./record.ts";
import { writtenRecord } from "./record.ts";
import { inputOf, sameInput } from "./trained-judge.ts";

/** What one side says of an output: its reward, one of its metrics, or a function. Null: nothing. */
export type Says = string | ((trajectory: Trajectory) => number | null);

export interface DisagreementOptions {
  /** Recorded groups, or files of them as a run's folder keeps them. */
  groups: readonly TrajectoryGroup[] | readonly string[];
  /** The judge that is to learn: "reward", the name of a metric, or a function. @default "reward" */
  judge?: Says | undefined;
  /** Who is right where they differ: gold, or the other judge. */
  truth: Says;
  /** "pairwise": pairs that the two order differently. "pointwise": outputs whose scores differ. */
  mode: JudgeMode;
  /** Of pointwise: by how much. @default 0.25 */
  least?: number | undefined;
  /** Kept of one group: those that differ most. @default 4 */
  perGroup?: number | undefined;
  /** Written as JSONL in OpenJudge's schema. @default not written */
  out?: string | undefined;
}

export interface Disagreements {
  /** Lines for `trainJudge`. */
  records: object[];
  /** Pairs of answers to the same conversation, or outputs, that both have a word on; those on which they differ. */
  compared: number;
  differ: number;
}

/**
 * Where a judge and gold, or two judges, differ on a run's outputs, as data to train the judge on: labelled by `truth`.
 * Pointwise labels are the truth's score from 0 to 1 in quarters.
 */
export async function collectDisagreements(options: DisagreementOptions): Promise<Disagreements> {
  refuseUnknownOptions("collectDisagreements()", options, [
    ...["groups", "judge", "truth", "mode", "least", "perGroup", "out"],
  ]);
  const { judge = "reward", truth, mode, out } = options;
  const least = requireNumber("least", options.least ?? 0.25, { above: 0 });
  const perGroup = requireNumber("perGroup", options.perGroup ?? 4, { least: 1, whole: true });
  const found: Disagreements = { records: [], compared: 0, differ: 0 };
  for await (const group of all(options.groups)) {
    const outputs = group.trajectories.flatMap((trajectory) => {
      const [said, right] = [valueOf(judge, trajectory), valueOf(truth, trajectory)];
      return said === null || right === null ? [] : [{ trajectory, said, right }];
    });
    const { compared, differing } =
      mode === "pairwise" ? pairs(outputs) : single(outputs, least, truth);
    found.compared += compared;
    found.differ += differing.length;
    differing.sort((a, b) => b.by - a.by);
    found.records.push(...differing.slice(0, perGroup).map(({ record }) => record));
  }
  if (found.compared === 0) {
    throw new HoneError(
      `Nothing can be compared: no output has both ${nameOf(judge)} and ${nameOf(truth)}${mode === "pairwise" ? ", or no two such outputs of a group answer the same conversation differently" : ""}. Name a metric that the run's rollouts return${mode === "pairwise" ? `, or take the mode "pointwise" for rollouts of several turns` : ""}.`,
      { code: "invalid_config", param: "truth" },
    );
  }
  if (out !== undefined) {
    await writeFile(out, found.records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  }
  return found;
}

async function* all(groups: DisagreementOptions["groups"]): AsyncGenerator<TrajectoryGroup> {
  for (const one of groups) {
    if (typeof one === "string") yield* await readGroups(one);
    else yield one;
  }
}

function valueOf(says: Says, trajectory: Trajectory): number | null {
  if (typeof says === "function") return says(trajectory);
  return says === "reward" ? trajectory.reward : (trajectory.metrics[says] ?? null);
}

function nameOf(says: Says): string {
  return typeof says === "string" ? `"${says}"` : "a score of the function";
}

interface Output {
  trajectory: Trajectory;
  said: number;
  right: number;
}

interface Differing {
  /** By how much they differ. */
  by: number;
  record: object;
}

function pairs(outputs: readonly Output[]) {
  const differing: Differing[] = [];
  let compared = 0;
  for (const [at, a] of outputs.entries()) {
    for (const b of outputs.slice(at + 1)) {
      const contents = [a, b].map(({ trajectory }) => completionText(trajectory));
      // Rollouts of several turns part after the first: their last answers are to different conversations.
      if (contents[0] === contents[1] || !sameInput(a.trajectory, b.trajectory)) continue;
      compared += 1;
      if (Math.sign(a.said - b.said) === Math.sign(a.right - b.right)) continue;
      const preference: Preference = a.right === b.right ? "tie" : a.right > b.right ? "A" : "B";
      const answers = contents.map((content) => ({ content, helpfulness: null }));
      const record = writtenRecord(
        { input: inputOf(a.trajectory), answers, preference },
        "disagreements",
      );
      differing.push({ by: Math.abs(a.said - b.said - (a.right - b.right)), record });
    }
  }
  return { compared, differing };
}

function single(outputs: readonly Output[], least: number, truth: Says) {
  const differing = outputs.flatMap(({ trajectory, said, right }): Differing[] => {
    if (right < 0 || right > 1) {
      throw new HoneError(
        `${nameOf(truth)} is ${right} for an output, and marks are made of scores from 0 to 1. Give a function that scales it, or take the mode "pairwise".`,
        { code: "invalid_config", param: "truth" },
      );
    }
    const by = Math.abs(said - right);
    if (by < least) return [];
    const answers = [{ content: completionText(trajectory), helpfulness: Math.round(4 * right) }];
    const written = { input: inputOf(trajectory), answers, preference: null };
    return [{ by, record: writtenRecord(written, "disagreements") }];
  });
  return { compared: outputs.length, differing };
}
