import {
  HoneError,
  refuseUnknownOptions,
  requireNumber,
  type ChatMessage,
  type Trajectory,
} from "@hone/core";
import { readScores, readScoresAsTrinity, type ReadScores } from "./judge-answer.ts";
import { judgePrompt, type ToJudge } from "./judge-prompt.ts";

/** What a rollout is worth in truth. `accuracy` and `formatScore` are metrics only. */
export interface Gold {
  reward: number;
  accuracy?: number | undefined;
  formatScore?: number | undefined;
}

export interface SelfJudgeOptions {
  /**
   * What a rollout is worth in truth; null if it cannot be said. It is asked for scenarios that have gold, and in
   * evaluations for all. @default the rollout's own reward
   */
  gold?:
    | ((
        trajectory: Trajectory,
        scenario: unknown,
      ) => number | Gold | null | Promise<number | Gold | null>)
    | undefined;
  /** The share of the scenarios that have gold: a coin for each, the same in every epoch. @default 0.2 */
  goldFraction?: number | undefined;
  /** Seed of the coins, and of the orders in which candidates are shown. @default 0 */
  seed?: number | undefined;
  /** Judgements of a scenario with gold, which are trained as a group of their own. @default 8 */
  judgementsWithGold?: number | undefined;
  /** Judgements of a scenario without gold, which score it and are not trained. @default 1 */
  judgementsWithoutGold?: number | undefined;
  /** Scenarios of a step whose judgements are trained at most. @default all that have gold */
  judgeGroups?: number | undefined;
  /** How much each token of a judgement weighs in the step, beside 1 of the rollouts. @default 1 */
  judgeWeight?: number | undefined;
  /**
   * Judgements score rollouts without gold only while the policy judges better than this where there is gold: the lower
   * end of the 95% interval of its accuracy (share of the pairs that gold tells apart which it orders alike, guessing
   * gives .5) over the newest `trustWindow` groups with gold has to lie above. Until then, and whenever it no longer
   * does, groups without gold have no rewards and are counted (`judge_untrusted`). The window begins empty at each start
   * of a program. Null trusts always. @default 0.5; null with `parity`, or where `goldFraction` is 0
   */
  trustAbove?: number | null | undefined;
  /** Groups with gold that say how well the policy judges: the newest ones. Half as many have to be there. @default 20 */
  trustWindow?: number | undefined;
  /** Judgements whose scores differ by less (standard deviation) earn nothing. @default 0.05 */
  varianceFloor?: number | undefined;
  /** Groups whose rewards differ by no more (standard deviation) are left out and counted. @default 1e-4 */
  stdThreshold?: number | undefined;
  /** Trinity-RFT's rules: its distance to scaled gold as the judge's reward, its way to read an answer. @default false */
  parity?: boolean | undefined;
  /** The judging prompt. @default task, candidates' last answers, and a list to end with */
  prompt?: ((group: ToJudge) => ChatMessage[]) | undefined;
  /** Reads a judgement. @default the last list of as many numbers from 0 to 1 as there are candidates */
  read?: ((text: string, group: ToJudge) => readonly number[] | null) | undefined;
  /** Of the judgements. @default 1 */
  temperature?: number | undefined;
  /** Tokens that a judgement may have. @default 512 */
  answerTokens?: number | undefined;
}

const optionNames = [
  ...["gold", "goldFraction", "seed", "judgementsWithGold", "judgementsWithoutGold"],
  ...["judgeGroups", "judgeWeight", "varianceFloor", "stdThreshold", "parity", "prompt", "read"],
  ...["temperature", "answerTokens", "trustAbove", "trustWindow"],
];

/** The options with their defaults. */
export type Settings = {
  [Name in keyof SelfJudgeOptions]-?: Exclude<SelfJudgeOptions[Name], undefined>;
};

export function readOptions(options: SelfJudgeOptions): Settings {
  refuseUnknownOptions("selfJudge()", options, optionNames);
  const number = (
    name: keyof SelfJudgeOptions,
    fallback: number,
    range: Parameters<typeof requireNumber>[2],
  ) => requireNumber(name, options[name] ?? fallback, range);
  const { parity = false, prompt = judgePrompt } = options;
  const byRule: ReadScores = parity ? readScoresAsTrinity : readScores;
  const { gold = ({ reward }) => reward } = options;
  const { read = (text: string, { candidates }: ToJudge) => byRule(text, candidates.length) } =
    options;
  return {
    ...{ gold, parity, prompt, read },
    judgeGroups:
      options.judgeGroups === undefined
        ? Infinity
        : number("judgeGroups", 0, { least: 0, whole: true }),
    goldFraction: number("goldFraction", 0.2, { least: 0, most: 1 }),
    seed: number("seed", 0, { least: 0, whole: true }),
    judgementsWithGold: number("judgementsWithGold", 8, { least: 2, whole: true }),
    judgementsWithoutGold: number("judgementsWithoutGold", 1, { least: 1, whole: true }),
    judgeWeight: number("judgeWeight", 1, { above: 0, most: 1000 }),
    varianceFloor: number("varianceFloor", 0.05, { least: 0 }),
    stdThreshold: number("stdThreshold", 1e-4, { least: 0 }),
    trustAbove: readTrust(options),
    trustWindow: number("trustWindow", 20, { least: 12, whole: true }),
    temperature: number("temperature", 1, { above: 0 }),
    answerTokens: number("answerTokens", 512, { least: 1, whole: true }),
  };
}

function readTrust({ trustAbove, parity = false, goldFraction }: SelfJudgeOptions): number | null {
  if (trustAbove === undefined) return parity || goldFraction === 0 ? null : 0.5;
  if (trustAbove === null) return null;
  if (goldFraction !== 0) return requireNumber("trustAbove", trustAbove, { least: 0, most: 1 });
  throw new HoneError(
    "selfJudge(): with goldFraction 0 nothing says how well the policy judges, so that trustAbove would never be reached. Leave it out, or give some scenarios gold.",
    { code: "invalid_config", param: "trustAbove" },
  );
}
