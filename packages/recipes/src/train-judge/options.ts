import type { Hone, TrajectoryGroup } from "@hone/client";
import { leastHeldOut, type RunEvent, type RunOptions } from "@hone/client/run";
import { HoneError, refuseUnknownOptions, requireNumber } from "@hone/core";
import type { JudgeMode } from "./judge-case.ts";
import type { JudgementPrompt } from "./prompt.ts";
import type { JudgeMethod } from "./report.ts";

export interface TrainJudgeOptions {
  /** "pointwise" scores one answer from 0 to 4; "pairwise" says which of two is better: A, B or tie. */
  mode: JudgeMode;
  /** "grpo" by rewards, "sft" by imitation of the labels, "bradley-terry" a score beside the adapter. */
  method: JudgeMethod;
  /** A JSONL or Parquet file in OpenJudge's schema, or its lines as values. */
  data: string | readonly unknown[];
  /** A set of its own to measure by. @default a share of the conversations of `data` */
  heldOut?: string | readonly unknown[] | undefined;
  /** The share of the conversations that is held out. @default 0.2 */
  heldOutShare?: number | undefined;
  /** The judge's name on the server. A model that exists goes on where it was. */
  name: string;
  /** Folder of the run's files. @default runs/ and the name */
  out?: string | undefined;
  /** Seed of split, orders, adapter and steps. @default 0 */
  seed?: number | undefined;
  /** Reads answers as OpenJudge does, credit for what cannot be read included. @default false */
  parity?: boolean | undefined;
  /** What the judge is asked. Ask it the same later. @default task, principles, conversation, answers, form */
  prompt?: JudgementPrompt | undefined;
  /** Tokens that a judgement may have. @default 1024 */
  answerTokens?: number | undefined;
  /** @default 1e-4 */
  learningRate?: number | undefined;
  /** Of sft and bradley-terry: how often each case is trained. @default 1 */
  epochs?: number | undefined;
  /** Of sft and bradley-terry: cases of a step. @default 16 */
  batchSize?: number | undefined;
  /** Of grpo: settings of the run, as of trainRun. */
  run?:
    | Pick<
        RunOptions<never>,
        | ("steps" | "groupsPerStep" | "groupSize" | "concurrency" | "temperature")
        | ("schedule" | "train" | "fill" | "curriculum" | "overlap" | "evalEvery" | "evalHeldOut")
      >
    | undefined;
  /** Of grpo and sft: allows fewer than 16 held-out cases, by which hardly any judge can be told from another. @default false */
  ungated?: boolean | undefined;
  /** The control: labels change places among the cases to train on. @default false */
  shuffleLabels?: boolean | undefined;
  /** @default new Hone() */
  hone?: Hone | undefined;
  onEvent?: ((event: JudgeTrainingEvent) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** A run's events, and the steps of sft and bradley-terry. */
export type JudgeTrainingEvent =
  | RunEvent
  | { type: "learning"; step: number; steps: number; loss: number | null; policy: string };

const optionNames = [
  ...["mode", "method", "data", "heldOut", "heldOutShare", "name", "out", "seed", "parity"],
  ...["prompt", "answerTokens", "learningRate", "epochs", "batchSize", "run", "shuffleLabels"],
  ...["hone", "onEvent", "signal", "ungated"],
];
const methodOptions: Readonly<Record<JudgeMethod, readonly string[]>> = {
  grpo: ["parity", "prompt", "answerTokens", "run", "ungated"],
  sft: ["parity", "prompt", "answerTokens", "epochs", "batchSize", "ungated"],
  "bradley-terry": ["epochs", "batchSize"],
};

function invalid(param: string, message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param });
}

export function checkOptions(options: TrainJudgeOptions): void {
  refuseUnknownOptions("trainJudge()", options, optionNames);
  const { mode, method } = options;
  if (mode !== "pointwise" && mode !== "pairwise") {
    throw invalid("mode", `mode is "pointwise" or "pairwise", not ${JSON.stringify(mode)}.`);
  }
  if (!Object.hasOwn(methodOptions, method)) {
    const known = '"grpo", "sft" or "bradley-terry"';
    throw invalid("method", `method is ${known}, not ${JSON.stringify(method)}.`);
  }
  const given = options as unknown as Record<string, unknown>;
  const others = new Set(Object.values(methodOptions).flat());
  for (const name of others) {
    if (given[name] === undefined || methodOptions[method].includes(name)) continue;
    throw invalid(name, `${name} is no option of the method "${method}". Leave it out.`);
  }
  const whole = { whole: true, least: 1 };
  for (const name of ["answerTokens", "epochs", "batchSize"] as const) {
    if (options[name] !== undefined) requireNumber(name, options[name], whole);
  }
  if (options.heldOut !== undefined && options.heldOutShare !== undefined) {
    throw invalid("heldOutShare", "Give heldOut or heldOutShare, not both.");
  }
}

/** Called before anything is asked or written. */
export function requireEnoughCases(heldOut: number, { method, ungated }: TrainJudgeOptions): void {
  // Bradley-Terry's pairs are counted where they are made: a case may give several, or none.
  if (ungated === true || method === "bradley-terry" || heldOut >= leastHeldOut) return;
  throw invalid(
    "heldOut",
    `${heldOut} held-out cases are too few to measure a judge by: give more data, a larger heldOutShare (--held-out-share) or a held-out set of its own, at least ${leastHeldOut} cases; or ungated: true (--ungated).`,
  );
}

/** What a method leaves for the report. */
export interface LearntJudge {
  before: TrajectoryGroup[];
  after: TrajectoryGroup[];
  policy: string;
  ties: number;
  notes: string[];
}

export type Given = TrainJudgeOptions & { seed: number; hone: Hone; out: string };
