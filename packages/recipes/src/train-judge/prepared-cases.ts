import { HoneError, requireNumber } from "@hone/core";
import {
  casesOf,
  keyOf,
  shuffledLabels,
  splitCases,
  type JudgeMode,
  type SplitCases,
} from "./judge-case.ts";
import { readJudgeData } from "./read-data.ts";

/** What decides which cases are trained on, and which are held out. */
export interface CaseOptions {
  mode: JudgeMode;
  data: string | readonly unknown[];
  heldOut?: string | readonly unknown[] | undefined;
  heldOutShare?: number | undefined;
  seed?: number | undefined;
  shuffleLabels?: boolean | undefined;
}

/** Reads and splits the data. A conversation is on one side only. */
export async function preparedCases(options: CaseOptions): Promise<SplitCases> {
  const { mode, seed = 0, shuffleLabels = false } = options;
  const share = requireNumber("heldOutShare", options.heldOutShare ?? 0.2, { above: 0, most: 0.9 });
  const cases = casesOf(await readJudgeData(options.data), mode);
  const split =
    options.heldOut === undefined
      ? splitCases(cases, share, seed)
      : { train: cases, heldOut: casesOf(await readJudgeData(options.heldOut), mode) };
  const trained = new Set(split.train.map(keyOf));
  const both = split.heldOut.find((one) => trained.has(keyOf(one)));
  if (both) {
    throw new HoneError(
      `${both.place} is held out, and its conversation is among those to train on. A judge would be measured by what it was trained on: leave it out of one of the two.`,
      { code: "invalid_request", param: "heldOut" },
    );
  }
  return {
    ...split,
    train: shuffleLabels ? shuffledLabels(split.train, seed + 1) : split.train,
  };
}
