import { rename, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Hone } from "@hone/client";
import { learnScores } from "./bradley-terry.ts";
import { digestOf } from "./judge-case.ts";
import { learnJudgements } from "./learn-judgements.ts";
import { checkOptions, requireEnoughCases, type TrainJudgeOptions } from "./options.ts";
import { preparedCases } from "./prepared-cases.ts";
import { judgeFigures, outcomeOf, type JudgeTraining } from "./report.ts";

/**
 * Trains a judge from labelled answers, and measures it on held-out ones before and after. Started again with the same
 * name and folder it goes on where it was. Every line of the data is read first: a bad one is an error that names it,
 * and nothing has been trained then.
 */
export async function trainJudge(options: TrainJudgeOptions): Promise<JudgeTraining> {
  checkOptions(options);
  const { mode, method, name, seed = 0 } = options;
  const { train, heldOut } = await preparedCases(options);
  requireEnoughCases(heldOut.length, options);
  const hone = options.hone ?? new Hone();
  const out = resolve(options.out ?? join("runs", name));
  const given = { ...options, seed, hone, out };
  const learnt =
    method === "bradley-terry"
      ? await learnScores(train, heldOut, { ...given, digest: digestOf(train) })
      : await learnJudgements(train, heldOut, given);
  const figures = judgeFigures(mode, learnt.before, learnt.after);
  const metric =
    method === "bradley-terry" && mode === "pointwise" ? "judge/pair_accuracy" : "judge/accuracy";
  const report: JudgeTraining = {
    ...{ mode, method, policy: learnt.policy, seed },
    cases: { train: train.length, heldOut: heldOut.length, ties: learnt.ties },
    ...{ figures, metric, outcome: outcomeOf(figures[metric]), notes: learnt.notes, out },
  };
  const file = join(out, "judge.json");
  await writeFile(`${file}.partial`, `${JSON.stringify(report, null, 2)}\n`);
  await rename(`${file}.partial`, file);
  return report;
}
