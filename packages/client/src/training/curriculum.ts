import { HoneError, printableLine, refuseUnknownOptions, requireNumber } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { mean } from "../statistics.ts";
import { optionalFunction } from "../argument-kinds.ts";
import { scenarioKey } from "./scenarios.ts";

export interface CurriculumOptions {
  /** How well a rollout did, from 0 to 1; null if that is not known. @default its reward */
  success?: ((trajectory: Trajectory) => number | null) | undefined;
  /**
   * The share of the draws that takes any scenario, however well or badly it went so far. Above 0, so that none is
   * left out for good: what was hopeless may no longer be. @default 0.2
   */
  floor?: number | undefined;
}

interface Curriculum {
  success: (trajectory: Trajectory) => number | null;
  floor: number;
}

/**
 * What is known of each scenario, a character each: a level from 0 to 61, or "-" if nothing is. It is part of the
 * cursor, so a run that is killed draws what it would have drawn.
 */
export interface CurriculumState {
  /** Scenarios drawn so far: the seed of the next draw follows from it. */
  readonly drawn: number;
  /** Success so far: level / 61. */
  readonly rates: string;
  /** Variance of the success within a group so far: level / 61 / 4, for 1/4 is the most that it can be. */
  readonly spreads: string;
}

/** Scenarios by their success so far: not known yet, in no rollout, in some, in all. */
export type Bands = Record<"unseen" | "never" | "sometimes" | "always", number>;

/** What the curriculum did in one batch. */
export interface CurriculumShares {
  /** Mean success of the batch's rollouts; null until they are known. */
  success: number | null;
  /** The scenarios of the batch, by what was known when they were drawn. */
  drawn: Bands;
  /** All scenarios, by what was known when the batch was dealt out. */
  all: Bands;
}

/** With more scenarios the cursor, which every step sends and stores, would get long. */
export const mostScenarios = 100_000;

const levels = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const top = levels.length - 1;
const unknown = "-";

export function newCurriculum(size: number): CurriculumState {
  return { drawn: 0, rates: unknown.repeat(size), spreads: unknown.repeat(size) };
}

/** Whether this is a state of so many scenarios. */
export function isCurriculum(value: unknown, size: unknown): value is CurriculumState {
  if (typeof value !== "object" || value === null) return false;
  const { drawn, rates, spreads } = value as Partial<Record<keyof CurriculumState, unknown>>;
  const isLevels = (text: unknown) =>
    typeof text === "string" && text.length === size && /^[0-9A-Za-z-]*$/.test(text);
  return Number.isSafeInteger(drawn) && isLevels(rates) && isLevels(spreads);
}

/** The options of a curriculum, checked, with their defaults; null if there is to be none. */
export function readCurriculum(
  where: string,
  given: boolean | CurriculumOptions | undefined,
): Curriculum | null {
  if (given === undefined || given === false) return null;
  const options = given === true ? {} : given;
  refuseUnknownOptions(`${where}: curriculum`, options, ["success", "floor"]);
  optionalFunction(where, options.success, "curriculum.success");
  const { success = ({ reward }) => reward, floor = 0.2 } = options;
  requireNumber("curriculum.floor", floor, { above: 0, most: 1 });
  return { success, floor };
}

/**
 * Draws a scenario that is not among the `taken` ones, or any where all are. Scenario i has the probability
 *
 *   floor/n + (1 − floor)·w_i/Σw,   w_i = 4·(variance of the success within its groups so far)
 *
 * For a success of 0 or 1 the variance is p(1 − p): sampling for learnability (https://arxiv.org/abs/2408.15099;
 * for language models https://arxiv.org/abs/2502.12272). A scenario of which nothing is known weighs 1.
 */
export function drawScenario(
  { spreads }: CurriculumState,
  taken: ReadonlySet<number>,
  floor: number,
  random: () => number,
): number {
  const all = Array.from(spreads, (_, index) => index);
  const free = taken.size < all.length ? all.filter((index) => !taken.has(index)) : all;
  const weights = free.map((index) => levelOf(spreads[index]) ?? 1);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  let left = random();
  for (const [at, index] of free.entries()) {
    const share = sum > 0 ? (weights[at] as number) / sum : 1 / free.length;
    left -= floor / free.length + (1 - floor) * share;
    if (left < 0) return index;
  }
  // What rounding left over.
  return free.at(-1) as number;
}

/** What a group says of its scenario; null if it says nothing. Variances are times 4, so that both are from 0 to 1. */
export function outcomeOf(
  group: TrajectoryGroup,
  success: Curriculum["success"],
): { rate: number; spread: number } | null {
  const known = group.trajectories.flatMap((trajectory) => {
    const value = success(trajectory);
    if (value === null) return [];
    if (value >= 0 && value <= 1) return [value];
    throw new HoneError(
      `The curriculum needs each rollout's success, from 0 to 1, and got ${String(value)} in the scenario ${shown(group.scenario)}. Without the option curriculum.success it is the reward: give a function that makes such a number of a trajectory, or do without a curriculum.`,
      { code: "invalid_config", param: "curriculum.success" },
    );
  });
  if (known.length === 0) return null;
  const rate = mean(known);
  return { rate, spread: 4 * mean(known.map((value) => (value - rate) ** 2)) };
}

/** Enough of a scenario to find it by; it may be long. */
function shown(scenario: unknown): string {
  const text = printableLine(scenarioKey(scenario));
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}

/** The state after these outcomes, by scenario. What is newer weighs as much as all before: the policy changes. */
export function withOutcomes(
  state: CurriculumState,
  outcomes: readonly (readonly [scenario: number, outcome: { rate: number; spread: number }])[],
): CurriculumState {
  const rates = Array.from(state.rates);
  const spreads = Array.from(state.spreads);
  for (const [scenario, { rate, spread }] of outcomes) {
    rates[scenario] = moved(rates[scenario], rate);
    spreads[scenario] = moved(spreads[scenario], spread);
  }
  return { ...state, rates: rates.join(""), spreads: spreads.join("") };
}

export function bandsOf({ rates }: CurriculumState, scenarios?: readonly number[]): Bands {
  const bands: Bands = { unseen: 0, never: 0, sometimes: 0, always: 0 };
  for (const scenario of scenarios ?? Array.from(rates, (_, index) => index)) {
    const rate = levelOf(rates[scenario]);
    if (rate === null) bands.unseen += 1;
    else bands[rate === 0 ? "never" : rate === 1 ? "always" : "sometimes"] += 1;
  }
  return bands;
}

function levelOf(character: string | undefined): number | null {
  if (character === undefined || character === unknown) return null;
  return levels.indexOf(character) / top;
}

/** Rounds towards the new value: what comes out equal again and again arrives there. */
function moved(character: string | undefined, value: number): string {
  const before = levelOf(character);
  if (before === null) return levels[Math.round(value * top)] as string;
  const exact = ((before + value) / 2) * top;
  // Sums of floats are off in the last digits.
  return levels[value < before ? Math.floor(exact + 1e-9) : Math.ceil(exact - 1e-9)] as string;
}
