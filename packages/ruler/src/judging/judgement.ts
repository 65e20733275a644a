import type { HoneError, Trajectory } from "@hone/core";
import type { AttemptScore } from "./answer.ts";
import type { Attempt } from "../prompt/attempts.ts";
import type { JudgeError } from "../judge/judge-error.ts";
import { mean, passSpread, positionBias } from "./seeded-order.ts";
import type { Settings } from "./settings.ts";

export interface MemberScore {
  /** Mean over the passes. */
  score: number;
  explanation: string;
  /** The score of each pass. */
  passes: readonly number[];
}

/** One valid pass, by member: its score, and the place at which it was shown, from 0 for the first to 1 for the last. */
export interface JudgedPass {
  scores: readonly number[];
  places: readonly number[];
}

/** What a judging took and found, beside the scores. */
export interface Judgement {
  /** `zero_variance`: all members did the same, or there is only one, so the judge was not asked. */
  status: "judged" | "zero_variance" | "failed";
  judge: string;
  /** The judge's own conversations, one for each pass with an answer, valid or not. Their reward is null. */
  trajectories: Trajectory[];
  /** How many different attempts the members are. */
  attempts: number;
  calls: number;
  /** How many answers came from the cache. */
  cachedAnswers: number;
  repairs: number;
  promptTokens: number;
  /** Those of the prompt tokens that the provider had cached. */
  cachedTokens: number;
  completionTokens: number;
  /** What the answers cost. Null if no price is known, or if an answer had no usage. */
  costUsd: number | null;
  /** See `positionBias` and `passSpread` in the guide; null for one pass. */
  positionBias: number | null;
  passSpread: number | null;
  failedPasses: number;
  /** The matches that ordered a close group, and how many of them gave no valid scores; null without a tournament. */
  tournament: { matches: number; failed: number } | null;
  /** Each valid pass. */
  passes: readonly JudgedPass[];
  /** What the token budget left out. */
  cuts: string[];
  error: HoneError | null;
}

export interface JudgedMembers {
  /** A score for each member; null if the judge gave none. */
  scores: (MemberScore | null)[];
  judgement: Judgement;
}

/** One order of the attempts, and what became of it. */
export interface Pass {
  order: readonly number[];
  scores: readonly AttemptScore[] | null;
  trajectory: Trajectory | null;
  calls: number;
  costUsd: number | null;
  cached: boolean;
  repairs: number;
  error: JudgeError | null;
}

/** One cost that is not known makes the sum unknown. */
export function addCost(sum: number | null, cost: number | null): number | null {
  return sum === null || cost === null ? null : sum + cost;
}

export function emptyJudgement(settings: Settings, attempts: number): Judgement {
  return {
    status: "zero_variance",
    judge: settings.target.label,
    trajectories: [],
    attempts,
    calls: 0,
    cachedAnswers: 0,
    repairs: 0,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
    costUsd: 0,
    positionBias: null,
    passSpread: null,
    failedPasses: 0,
    tournament: null,
    passes: [],
    cuts: [],
    error: null,
  };
}

/** The mean over the valid passes, and what all passes took. */
export function summarise(
  members: number,
  attempts: readonly Attempt[],
  passes: readonly Pass[],
  empty: Judgement,
): JudgedMembers {
  const sum = (value: (pass: Pass) => number): number =>
    passes.reduce((total, pass) => total + value(pass), 0);
  const costs = passes.map(({ costUsd }) => costUsd);
  const valid = passes.flatMap(({ order, scores }) => (scores ? [{ order, scores }] : []));
  const numbers = valid.map(({ order, scores }) => ({
    order,
    scores: scores.map(({ score }) => score),
  }));
  const judgement: Judgement = {
    ...empty,
    status: valid.length > 0 ? "judged" : "failed",
    trajectories: passes.flatMap(({ trajectory }) =>
      trajectory?.messages.some(({ role }) => role === "assistant") ? [trajectory] : [],
    ),
    calls: sum(({ calls }) => calls),
    cachedAnswers: sum(({ cached }) => (cached ? 1 : 0)),
    repairs: sum(({ repairs }) => repairs),
    promptTokens: sum(({ trajectory }) => trajectory?.usage.promptTokens ?? 0),
    cachedTokens: sum(({ trajectory }) => trajectory?.metrics["cached_tokens"] ?? 0),
    completionTokens: sum(({ trajectory }) => trajectory?.usage.completionTokens ?? 0),
    costUsd: costs.reduce(addCost, 0),
    positionBias: positionBias(numbers),
    passSpread: passSpread(numbers),
    failedPasses: passes.length - valid.length,
    passes: numbers.map((pass) => byMember(pass, attempts, members)),
    error: passes.find(({ error }) => error)?.error ?? null,
  };
  const scores: (MemberScore | null)[] = Array.from({ length: members }, () => null);
  if (valid.length > 0) {
    for (const [index, attempt] of attempts.entries()) {
      const given = valid.map((pass) => pass.scores[index] as AttemptScore);
      const perPass = given.map(({ score }) => score);
      const judged = {
        score: mean(perPass),
        explanation: given.map(({ explanation }) => explanation).join(" | "),
        passes: perPass,
      };
      for (const member of attempt.members) scores[member] = judged;
    }
  }
  return { scores, judgement };
}

function byMember(
  { order, scores }: { order: readonly number[]; scores: readonly number[] },
  attempts: readonly Attempt[],
  members: number,
): JudgedPass {
  const given = { scores: Array<number>(members).fill(0), places: Array<number>(members).fill(0) };
  for (const [at, attempt] of order.entries()) {
    for (const member of attempts[attempt]?.members ?? []) {
      given.scores[member] = scores[attempt] ?? 0;
      given.places[member] = order.length > 1 ? at / (order.length - 1) : 0;
    }
  }
  return given;
}
