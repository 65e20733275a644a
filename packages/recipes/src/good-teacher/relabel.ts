import { HoneError, mulberry32, shuffledIndices } from "@hone/core";
import type { ExaminedJudge } from "../doctor/judge.ts";
import {
  preferenceSchema,
  promptOf,
  readRows,
  requireLabelled,
  type Labelled,
  type Preference,
  type Split,
} from "./preferences.ts";
import { requireApart, scored, type ScoringOptions } from "./scoring.ts";
import { jsonLines, runStage } from "./stage.ts";

export interface RelabelOptions extends ScoringOptions {
  /** Preferences in UltraFeedback's schema. */
  input: string;
  out: string;
  scorer: ExaminedJudge;
  /** What else the scorer's scores depend on: its file's contents are to be the same when the stage goes on. */
  scorerFile?: string | undefined;
  /** Leaves out pairs whose answers the scorer gives the same score. */
  dropTies: boolean;
  /** The share of the prompts that are measured on. */
  testShare: number;
  /** The share of the other prompts on which policies are trained; reward models are trained on the rest. */
  policyShare: number;
  /** Takes so many pairs, drawn by the seed. @default all */
  pairs?: number | undefined;
  seed: number;
}

/** Has the scorer say which answer of each pair is better, and deals the prompts out. */
export async function relabel(options: RelabelOptions): Promise<boolean> {
  const { input, out, scorer, scorerFile, dropTies, testShare, policyShare, pairs, seed } = options;
  return await runStage<number[] | null>(
    {
      ...{ name: "relabel", out },
      inputs: { preferences: input, ...(scorerFile && { scorer: scorerFile }) },
      options: { scorer: scorer.label, dropTies, testShare, policyShare, pairs, seed },
    },
    async (progress) => {
      const all = await readRows(input, preferenceSchema);
      const given = drawn(all, pairs, seed);
      for (const [at, row] of given.entries()) requireOnePrompt(row, `${input}, pair ${at + 1}`);
      const items = given.map(({ chosen, rejected }) => ({
        prompt: promptOf(chosen),
        answers: [chosen.slice(-1), rejected.slice(-1)],
      }));
      const scores = await scored(items, scorer, progress, options);
      requireApart(scores, scorer.label, "pairs");
      const splitOf = dealt(given, { testShare, policyShare, seed });
      const rows = given.flatMap((row, at) => {
        const [first, second] = scores[at] ?? [];
        if (first === undefined || second === undefined) return [];
        if (dropTies && first === second) return [];
        return [labelled(row, [first, second], splitOf(row))];
      });
      requireLabelled(rows, input);
      return jsonLines(rows);
    },
  );
}

function labelled(row: Preference, [first, second]: [number, number], split: Split): Labelled {
  const swapped = second > first;
  const { prompt, chosen, rejected } = row;
  return {
    prompt,
    ...(swapped ? { chosen: rejected, rejected: chosen } : { chosen, rejected }),
    score_chosen: Math.max(first, second),
    score_rejected: Math.min(first, second),
    ...{ split, swapped },
  };
}

function drawn(all: readonly Preference[], pairs: number | undefined, seed: number): Preference[] {
  if (pairs === undefined || pairs >= all.length) return [...all];
  const order = shuffledIndices(all.length, mulberry32(seed)).slice(0, pairs);
  return order.sort((a, b) => a - b).map((at) => all[at] as Preference);
}

/** By prompts: pairs of one prompt stay together, so that nothing is measured on what was trained. */
function dealt(
  rows: readonly Preference[],
  { testShare, policyShare, seed }: { testShare: number; policyShare: number; seed: number },
): (row: Preference) => Split {
  const key = ({ chosen }: Preference) => JSON.stringify(promptOf(chosen));
  const prompts = [...new Set(rows.map(key))];
  const order = shuffledIndices(prompts.length, mulberry32(seed + 1));
  const test = Math.round(testShare * prompts.length);
  const policy = test + Math.round(policyShare * (prompts.length - test));
  const splitOf = new Map<string, Split>(
    order.map((at, place) => [
      prompts[at] as string,
      place < test ? "test" : place < policy ? "policy" : "reward_model",
    ]),
  );
  return (row) => splitOf.get(key(row)) as Split;
}

function requireOnePrompt({ chosen, rejected }: Preference, place: string): void {
  const [one, other] = [chosen, rejected].map((side) => JSON.stringify(promptOf(side)));
  if (one === other) return;
  throw new HoneError(
    `${place}: chosen and rejected answer different conversations. All messages but the last have to be the same.`,
    { code: "invalid_request" },
  );
}
