import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { HoneError, mulberry32, shuffledIndices } from "@hone/core";
import { JudgeError, rulerScoreGroup, type Judge, type JudgeOptions } from "@hone/ruler";
import { rewardModel, type RewardModelOptions } from "@hone/ruler/rewards";
import type { ExaminedJudge, JudgeFunction } from "./judge.ts";

/** Options of RULER that the doctor leaves to its caller. */
export type RulerJudgeOptions = Omit<
  JudgeOptions,
  "passes" | "seed" | "signal" | "cache" | "debug" | "alwaysJudge"
>;

/** RULER over any judge that it takes: one listwise request for each judging, in seeded orders. */
export function rulerJudge(judge: Judge, options: RulerJudgeOptions = {}): ExaminedJudge {
  return {
    label: typeof judge === "string" ? judge : `${new URL(judge.baseURL).host}/${judge.model}`,
    scale: { low: 0, high: 1 },
    async judge(group, { passes, seed, signal }) {
      const began = performance.now();
      const secondsEach = () => (performance.now() - began) / 1000 / passes;
      const given = { ...options, passes, seed, signal, cache: false, swallowErrors: false };
      try {
        const { judgement } = await rulerScoreGroup(group, judge, given);
        return {
          judgings: judgement.passes,
          asked: judgement.status === "zero_variance" ? 0 : passes,
          repaired: judgement.repairs,
          costUsd: judgement.costUsd,
          seconds: secondsEach(),
          error: judgement.error?.message ?? null,
        };
      } catch (error) {
        // A judge that fails is what the doctor is to find; a wrong option or an abort is not.
        if (!JudgeError.isInstance(error)) throw error;
        const { message } = error;
        const nothing = { judgings: [], asked: passes, repaired: 0, costUsd: null };
        return { ...nothing, seconds: secondsEach(), error: message };
      }
    },
  };
}

/** A reward model of the Hone server, which scores each output by itself. */
export function rewardModelJudge(options: RewardModelOptions): ExaminedJudge {
  const score = rewardModel(options);
  return {
    label: `rm:${options.model}`,
    scale: null,
    async judge(group, { passes, signal }) {
      const judged = await inTurn(passes, signal, async () => {
        const scores = await Promise.all(
          group.trajectories.map(
            async (trajectory, index) => await score(trajectory, { group, index, signal }),
          ),
        );
        return { scores, places: null };
      });
      return { ...judged, costUsd: 0 };
    },
  };
}

/** A function of one's own. It sees the outputs in a seeded order, and each second time in the reverse of it. */
export function functionJudge(label: string, fn: JudgeFunction): ExaminedJudge {
  return {
    label,
    scale: null,
    async judge({ scenario, trajectories }, { passes, seed, signal }) {
      const random = mulberry32(seed);
      let order: number[] = [];
      const judged = await inTurn(passes, signal, async (pass) => {
        order = pass % 2 === 1 ? order.toReversed() : shuffledIndices(trajectories.length, random);
        const shown = order.map((at) => trajectories[at]!);
        const given = await fn(shown, { scenario, signal });
        return inOwnOrder(label, given, order);
      });
      // Whom it asks, and at what price, only its writer knows.
      return { ...judged, costUsd: null };
    },
  };
}

/** A judging that fails is left out, and said. A wrong option or an abort ends the examination. */
async function inTurn<Judging>(
  passes: number,
  signal: AbortSignal,
  judge: (pass: number) => Promise<Judging>,
) {
  const began = performance.now();
  const judgings: Judging[] = [];
  let error: string | null = null;
  for (let pass = 0; pass < passes; pass += 1) {
    try {
      judgings.push(await judge(pass));
    } catch (cause) {
      signal.throwIfAborted();
      if (HoneError.isInstance(cause) && endsIt.has(cause.code)) throw cause;
      error = cause instanceof Error ? cause.message : String(cause);
    }
  }
  const seconds = (performance.now() - began) / 1000 / passes;
  return { judgings, asked: passes, repaired: 0, seconds, error };
}

/** What the next judging would fail at too. */
const endsIt: ReadonlySet<string> = new Set([
  ...["invalid_config", "invalid_api_key", "not_found", "model_not_found"],
]);

function inOwnOrder(label: string, given: unknown, order: readonly number[]) {
  const scores: (number | null)[] = order.map(() => null);
  const places = order.map(() => 0);
  const isScore = (one: unknown) => one === null || Number.isFinite(one);
  if (!Array.isArray(given) || given.length !== order.length || !given.every(isScore)) {
    throw invalid(
      `${label} gave no list of ${order.length} scores, one for each output in the order given: finite numbers, or null where it does not apply.`,
    );
  }
  for (const [at, output] of order.entries()) {
    scores[output] = given[at] as number | null;
    places[output] = order.length > 1 ? at / (order.length - 1) : 0;
  }
  return { scores, places };
}

export interface JudgeNames {
  ruler?: RulerJudgeOptions | undefined;
  rewardModel?: Omit<RewardModelOptions, "model"> | undefined;
  /** Where relative module paths begin. @default the working directory */
  folder?: string | undefined;
}

/**
 * A judge by its name: `rm:NAME`, a reward model of the server; `./file.ts` or `./file.ts#export`, a function of one's
 * own; `http://host:port/v1#MODEL`, any OpenAI-compatible server; otherwise RULER's own names, `openai/o4-mini` or
 * `hone/MODEL`.
 */
export async function namedJudge(name: string, options: JudgeNames = {}): Promise<ExaminedJudge> {
  if (name.startsWith("rm:")) {
    const model = name.slice(3);
    if (!model) throw invalid(`"${name}" names no reward model. Write rm:NAME.`);
    return rewardModelJudge({ tooLong: "truncate", ...options.rewardModel, model });
  }
  if (/^https?:\/\//.test(name)) {
    const [baseURL = "", model = ""] = name.split("#");
    if (!model) throw invalid(`"${name}" names no model. Write http://host:port/v1#MODEL.`);
    return rulerJudge({ baseURL, model }, options.ruler);
  }
  if (/^(\.{0,2}\/|[A-Za-z]:\\)/.test(name) || /\.[cm]?[jt]s(#|$)/.test(name)) {
    return functionJudge(name, await moduleFunction(name, options.folder ?? "."));
  }
  return rulerJudge(name, options.ruler);
}

async function moduleFunction(name: string, folder: string): Promise<JudgeFunction> {
  const [path = "", exported = "default"] = name.split("#");
  const file = resolve(folder, path);
  let module: Record<string, unknown>;
  try {
    module = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new HoneError(`The judge ${name} cannot be loaded. ${message}`, {
      ...{ code: "invalid_config", param: "judges", cause: error },
    });
  }
  // A file that is read as CommonJS has its exports in its default one.
  const inner = module["default"] as Record<string, unknown> | undefined;
  const fn = typeof module[exported] === "function" ? module[exported] : inner?.[exported];
  if (typeof fn === "function") return fn as JudgeFunction;
  throw invalid(
    `${path} has no function as its ${exported === "default" ? "default export" : `export ${exported}`}. Export (trajectories, { scenario, signal }) => scores.`,
  );
}

function invalid(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "judges" });
}
