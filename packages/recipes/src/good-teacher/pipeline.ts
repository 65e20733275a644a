import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Hone, SupervisedEvent } from "@hone/client";
import { makeFolder, type RunEvent } from "@hone/client/run";
import { namedJudge, type JudgeNames } from "../doctor/judges.ts";
import { evaluate, normalise } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { imitate, readStart } from "./imitation.ts";
import { mixPairs } from "./pairs.ts";
import { trainPolicy } from "./policy.ts";
import { relabel } from "./relabel.ts";
import { trainRewardModel } from "./reward-model.ts";
import type { RewardSource } from "./reward-source.ts";
import { scorerFileOf, type GoodTeacherSettings } from "./settings.ts";
import { readTeacherRow, teacherOrder, type TeacherOrder, type TeacherRow } from "./table.ts";

export interface GoodTeacherOptions {
  hone: Hone;
  /** Where reward models are asked. @default as `new Hone()` finds the server */
  names?: JudgeNames | undefined;
  /** All files go there. */
  out: string;
  /** Models are called by it: NAME-sft, NAME-rm-50, NAME-policy-50. */
  name: string;
  /** UltraFeedback's schema. */
  preferences: string;
  /** The ground truth, by its name as of the judge doctor. */
  scorer: string;
  /** What the first policy imitates. @default the better answers of the preferences */
  examples?: string | undefined;
  /** Shares of on-policy pairs: a reward model for each. */
  shares: readonly number[];
  /** Further rewards to train by, by a name for the table. */
  others: Readonly<Record<string, RewardSource>>;
  settings: GoodTeacherSettings;
  signal: AbortSignal;
  onEvent?: ((event: GoodTeacherEvent) => void) | undefined;
}

export type GoodTeacherEvent =
  | { type: "stage"; file: string }
  /** `made`: by this start; otherwise by an earlier one. */
  | { type: "stage-ended"; file: string; made: boolean; seconds: number }
  | { type: "scored"; done: number; total: number }
  | { type: "supervised"; event: SupervisedEvent }
  | { type: "run"; event: RunEvent }
  | { type: "row"; row: TeacherRow };

/** The ground truth itself, and the ground truth made flat: in order perfect, with little variance within prompts. */
export const goldSources: Readonly<Record<string, RewardSource>> = {
  "ground truth": { reward: "gold" },
  "perfect but flat": { reward: "gold", scale: 0.1, scaleShare: 0.75 },
};

/** All stages, in order. Those whose files are made are not done again; one that was interrupted goes on. */
export async function goodTeacher(
  options: GoodTeacherOptions,
): Promise<{ rows: TeacherRow[]; order: TeacherOrder }> {
  const { hone, names = {}, out, name, shares, others, settings, signal, onEvent } = options;
  const { seed, concurrency, temperature, answerTokens } = settings;
  makeFolder(out, { param: "out" });
  const file = (of: string) => join(out, of);
  const stage = async (path: string, run: (out: string) => Promise<boolean>) => {
    signal.throwIfAborted();
    onEvent?.({ type: "stage", file: path });
    const began = performance.now();
    const made = await run(file(path));
    const seconds = (performance.now() - began) / 1000;
    onEvent?.({ type: "stage-ended", file: path, made, seconds });
    return file(path);
  };
  const scorer = await namedJudge(options.scorer, names);
  const scorerFile = scorerFileOf(options.scorer);
  const scoring = {
    ...{ signal, concurrency, scorer, scorerFile },
    onProgress: (done: number, total: number) => onEvent?.({ type: "scored", done, total }),
  };
  const server = {
    ...{ hone, signal },
    onStep: (event: SupervisedEvent) => onEvent?.({ type: "supervised", event }),
  };
  const labelled = await stage("labelled.jsonl", (made) =>
    relabel({
      ...{ ...scoring, input: options.preferences, out: made, dropTies: settings.dropTies },
      ...{ testShare: settings.testShare, policyShare: settings.policyShare },
      ...{ pairs: settings.preferences, seed },
    }),
  );
  const start = await stage("sft.json", (made) =>
    imitate({
      ...{ ...server, ...settings.sft, examples: options.examples ?? labelled },
      ...{ model: `${name}-sft`, out: made, seed },
    }),
  );
  const first = await readStart(start);
  const model = await hone.model({ name: first.model, seed: first.seed }, { signal });
  const { samples } = settings;
  const outputs = await stage("outputs.jsonl", (made) =>
    generate({
      ...{ ...scoring, labelled, out: made, policy: model.at(first.step), start, samples },
      ...{ temperature, answerTokens, seed },
    }),
  );
  const sources: [label: string, key: string, source: RewardSource][] = [];
  for (const share of shares) {
    const key = String(Math.round(100 * share));
    const pairs = await stage(`pairs-${key}.jsonl`, (made) =>
      mixPairs({
        ...{ labelled, outputs, out: made, onPolicyShare: share, pairs: settings.pairs, seed },
      }),
    );
    const trained = await stage(`rm-${key}.json`, (made) =>
      trainRewardModel({
        ...{ ...server, ...settings.rewardModel, pairs, start, out: made },
        ...{ model: `${name}-rm-${key}`, seed },
      }),
    );
    sources.push([`reward model, ${key}%`, key, { reward: trained }]);
  }
  for (const [label, source] of Object.entries(others)) {
    sources.push([label, label.toLowerCase().replace(/[^a-z0-9]+/g, "-"), source]);
  }
  const rows: TeacherRow[] = [];
  for (const [label, key, source] of sources) {
    const measured = { ...scoring, outputs, source, names };
    const evaluation = await stage(`evaluation-${key}.json`, (made) =>
      evaluate({ ...measured, labelled, out: made }),
    );
    const normalisation = await stage(`normalisation-${key}.json`, (made) =>
      normalise({ ...measured, out: made }),
    );
    const policy = await stage(`policy-${key}.json`, (made) =>
      trainPolicy({
        ...{ hone, names, labelled, start, normalisation, scorer, scorerFile, signal, concurrency },
        ...{ ...settings.policy, temperature, answerTokens, seed },
        ...{ out: made, model: `${name}-policy-${key}` },
        onEvent: (event) => onEvent?.({ type: "run", event }),
      }),
    );
    const row = await readTeacherRow(label, { evaluation, policy });
    rows.push(row);
    onEvent?.({ type: "row", row });
    const order = rows.length > 1 ? teacherOrder(rows) : null;
    await writeFile(file("table.json"), `${JSON.stringify({ rows, order }, null, 2)}\n`);
  }
  return { rows, order: teacherOrder(rows) };
}
