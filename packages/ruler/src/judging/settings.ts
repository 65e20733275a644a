import { HoneError, requireNumber } from "@hone/core";
import { patientRequest } from "@hone/transport";
import type { Fetch } from "@hone/transport";
import { platform } from "#platform";
import { answerJsonSchema } from "./answer.ts";
import { JudgeBudget } from "../judge/budget.ts";
import { boundedParameters } from "../judge/call-cost.ts";
import type { CallSettings } from "../judge/judge-call.ts";
import { resolveJudge } from "../judge/judge-target.ts";
import type { Judge, JudgeTarget, StructuredOutput } from "../judge/judge-target.ts";
import { refuseUnknownOptions } from "@hone/core";
import { laneOf } from "../judge/lane.ts";
import type { AnswerStore, Platform } from "../platform.ts";
import { priceOf } from "../judge/prices.ts";
import type { Price } from "../judge/prices.ts";
import { defaultRubric } from "../prompt/rubrics.ts";
import { estimateTokens } from "../prompt/token-estimate.ts";

export interface JudgeOptions {
  /** What a good attempt is. @default defaultRubric */
  rubric?: string | undefined;
  /** In how many orders the group is judged. The scores are averaged. @default 1 */
  passes?: number | undefined;
  /**
   * What becomes of a group whose scores differ by less than the judge's noise: `tournament` has the judge compare two
   * attempts at a time, a request for each match, and scores each attempt by the share of the rounds that it survives.
   * Needs `judgeNoise`, or two passes or more. @default false: the listwise scores stay
   */
  closeGroups?: "tournament" | false | undefined;
  /**
   * Standard deviation of a score between judgings, as the judge doctor measures it.
   * @default the spread between the passes of this judging
   */
  judgeNoise?: number | undefined;
  /** Seed of the orders. @default 0 */
  seed?: number | undefined;
  /** Asks the judge even if there is nothing to compare. For evaluation, not for training. @default false */
  alwaysJudge?: boolean | undefined;
  /** How many tokens a prompt may have. Longer attempts are cut in the middle. @default 100000 */
  tokenBudget?: number | undefined;
  /** Counts a text's tokens as the judge does. @default an estimate on the safe side */
  countTokens?: ((text: string) => number) | undefined;
  /** @default the key that the environment has for the provider */
  apiKey?: string | undefined;
  /** Sent with each request as it is: `{reasoning_effort: "low"}`, `{temperature: 0}`. */
  parameters?: Readonly<Record<string, unknown>> | undefined;
  /** How the judge is held to the shape of its answer. @default the strictest form that the provider takes */
  structuredOutput?: StructuredOutput | undefined;
  /** Keeps answers on disk. `false` turns it off; `folder` says where. @default on, in HONE_HOME or ~/.hone */
  cache?: boolean | { folder: string } | undefined;
  /** Prices by the label of the judge. They go before those of the built-in list. */
  prices?: Readonly<Record<string, Price>> | undefined;
  /**
   * What all requests with this budget may cost together. An answer is then limited to 16,000 tokens, unless
   * `parameters` have a limit of their own.
   */
  budget?: JudgeBudget | undefined;
  /** Requests to this judge at the same time. @default 8 */
  concurrency?: number | undefined;
  /** How often a request is repeated after 408, 409, 429, 5xx and lost connections. @default 4 */
  maxRetries?: number | undefined;
  /** How long one request may take. @unit ms @default 120000 */
  timeoutMs?: number | undefined;
  /** How long judging a group may take in all, waiting included. @unit ms @default 600000 */
  deadlineMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Prints the scores and the judge's reasons. A function gets the text instead. @default false */
  debug?: boolean | ((text: string) => void) | undefined;
  /** @default globalThis.fetch */
  fetch?: Fetch | undefined;
}

export const judgeOptionNames = [
  "rubric",
  "passes",
  "closeGroups",
  "judgeNoise",
  "seed",
  "alwaysJudge",
  "tokenBudget",
  "countTokens",
  "apiKey",
  "parameters",
  "structuredOutput",
  "cache",
  "prices",
  "budget",
  "concurrency",
  "maxRetries",
  "timeoutMs",
  "deadlineMs",
  "signal",
  "debug",
  "fetch",
] as const satisfies (keyof JudgeOptions)[];

/** Parameters that each request sets itself. */
const ownParameters = ["model", "messages", "stream", "n", "response_format", "logprobs"];

export interface Settings {
  target: JudgeTarget;
  platform: Platform;
  rubric: string;
  passes: number;
  closeGroups: "tournament" | false;
  judgeNoise: number | null;
  seed: number;
  /** Each order that the seed gives is reversed. */
  reversed: boolean;
  alwaysJudge: boolean;
  tokenBudget: number;
  countTokens: (text: string) => number;
  parameters: Readonly<Record<string, unknown>>;
  structuredOutput: StructuredOutput;
  answers: AnswerStore | null;
  price: Price | null;
  budget: JudgeBudget | null;
  signal: AbortSignal | undefined;
  debug: ((text: string) => void) | null;
  call(): CallSettings;
}

export async function resolveSettings(
  where: string,
  judge: Judge,
  options: JudgeOptions,
  known: readonly string[],
): Promise<Settings> {
  refuseUnknownOptions(where, options, known);
  const whole = (name: keyof JudgeOptions, fallback: number, least: number): number =>
    requireNumber(name, options[name] ?? fallback, { least, whole: true });
  const passes = whole("passes", 1, 1);
  const seed = whole("seed", 0, 0);
  const tokenBudget = whole("tokenBudget", 100_000, 1);
  const concurrency = whole("concurrency", 8, 1);
  const maxRetries = whole("maxRetries", 4, 0);
  const timeoutMs = whole("timeoutMs", 120_000, 1);
  const deadline = performance.now() + whole("deadlineMs", 600_000, 1);
  const { rubric = defaultRubric, parameters = {}, cache = true, debug = false } = options;
  if (!rubric.trim()) {
    throw new HoneError("The rubric is empty. Leave it out for the default one.", {
      code: "invalid_config",
      param: "rubric",
    });
  }
  for (const name of ownParameters) {
    if (!Object.hasOwn(parameters, name)) continue;
    throw new HoneError(`parameters.${name} is set by the ruler. Leave it out.`, {
      code: "invalid_config",
      param: `parameters.${name}`,
    });
  }
  const target = resolveJudge(judge, platform, options.apiKey);
  const price = priceOf(target.label, target.hone !== null, options.prices);
  if (options.budget && !price) {
    throw new HoneError(
      `No price is known for ${target.label}, so a budget in money cannot be kept. Pass prices: {"${target.label}": {input, output}} in dollars for a million tokens.`,
      { code: "invalid_config", param: "prices" },
    );
  }
  // An answer without a limit could cost anything; one that costs nothing needs none.
  const sent =
    options.budget && price && price.output > 0
      ? boundedParameters(parameters, target)
      : parameters;
  const structuredOutput = options.structuredOutput ?? target.structuredOutput;
  const fetch =
    options.fetch ?? ((input, init) => globalThis.fetch(input, patientRequest(init ?? {})));
  const folder = typeof cache === "object" ? cache.folder : undefined;
  return {
    target,
    platform,
    rubric,
    passes,
    closeGroups: readCloseGroups(where, options, passes),
    judgeNoise: options.judgeNoise ?? null,
    seed,
    reversed: false,
    alwaysJudge: options.alwaysJudge ?? false,
    tokenBudget,
    countTokens: options.countTokens ?? estimateTokens,
    parameters,
    structuredOutput,
    // The name of a model on our own server stands for a policy that changes, and its calls are to be trained.
    answers: cache === false || target.hone ? null : platform.answerStore(folder),
    price,
    budget: options.budget ?? null,
    signal: options.signal,
    debug: debug === true ? (text) => console.log(text) : debug || null,
    call: () => ({
      target,
      baseURL: target.baseURL,
      lane: laneOf(target.baseURL, target.model, concurrency),
      plan: { maxRetries, deadline, signal: options.signal, random: Math.random },
      timeoutMs,
      structuredOutput,
      schema: answerJsonSchema,
      parameters: sent,
      price,
      reserve: null,
      fetch,
    }),
  };
}

function readCloseGroups(where: string, options: JudgeOptions, passes: number) {
  const { closeGroups = false, judgeNoise } = options;
  if (judgeNoise !== undefined) requireNumber("judgeNoise", judgeNoise, { least: 0 });
  if (closeGroups !== false && closeGroups !== "tournament") {
    throw new HoneError(`${where}: closeGroups is "tournament" or false.`, {
      ...{ code: "invalid_config", param: "closeGroups" },
    });
  }
  if (closeGroups === "tournament" && judgeNoise === undefined && passes < 2) {
    throw new HoneError(
      `${where}: closeGroups needs to know the judge's noise. Give judgeNoise, as the judge doctor measures it, or passes: 2.`,
      { code: "invalid_config", param: "judgeNoise" },
    );
  }
  return closeGroups;
}
