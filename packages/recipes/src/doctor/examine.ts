import { setMaxListeners } from "node:events";
import type { TrajectoryGroup } from "@hone/core";
import type { ExaminedJudge, GroupJudging } from "./judge.ts";
import * as statistics from "./statistics.ts";
import type { Estimate, JudgedGroup, Movement, Spread } from "./statistics.ts";
import { verdictOf, type Verdict } from "./verdict.ts";

/** What the doctor found out about one judge. A figure that the data do not give is null. */
export interface JudgeReport {
  judge: string;
  groups: number;
  /** Judgings that were asked for, those that gave valid scores, and those that did so only when asked again. */
  judgings: { asked: number; valid: number; repaired: number };
  /** Of one judging: about the share of the variance of its scores that lies within groups. */
  variance: Estimate | null;
  /** Share of judgings whose scores are all equal, groups of equal outputs among them: they teach nothing. */
  zeroVariance: Estimate | null;
  /** Share of pairs ordered as gold orders them; a tie agrees only with a tie. */
  accuracy: Estimate | null;
  /** The same over the pairs that gold tells apart; a tie of the judge counts half, guessing gives .5. */
  rankAccuracy: Estimate | null;
  /** Mean of variance and accuracy. */
  combined: Estimate | null;
  /** Variance between re-judgings over the variance within groups: 0 repeats itself, 1 is all noise. */
  noiseRatio: Estimate | null;
  /** The noise itself: standard deviation of a score between re-judgings, beside what the place explains. */
  noise: Estimate | null;
  /** What being shown last instead of first adds to a score. */
  positionBias: Estimate | null;
  /** The same in standard deviations of the scores within a group. */
  positionBiasInDeviations: number | null;
  /** Share of scores at an end of the judge's scale. */
  saturation: Estimate | null;
  costUsdPerJudging: number | null;
  secondsPerJudging: number | null;
  /** Why judgings are missing, each reason once, with how often. */
  errors: { message: string; count: number }[];
  verdict: Verdict;
}

/** What one group says, summed up once: intervals draw groups hundreds of times. */
interface Examined {
  alike: boolean;
  /** By judging. */
  spreads: Spread[];
  movement: Movement | null;
  equal: number;
  /** Means over the judgings; null where gold says nothing. */
  accuracy: number | null;
  rankAccuracy: number | null;
  atEnds: number;
}

/** The figures of one judge from what became of each group. `gold` has the order of the groups and their outputs. */
export function judgeReport(
  { label, scale }: Pick<ExaminedJudge, "label" | "scale">,
  judged: readonly GroupJudging[],
  gold: readonly (readonly (number | null)[])[],
  options: { seed?: number } = {},
): JudgeReport {
  const seen = judged.map((group, at) => whole(group, gold[at] ?? []));
  const scores = seen.flatMap(({ judgings }) => judgings.flatMap((judging) => judging.scores));
  const ends = statistics.endsOf(scores, scale);
  const groups = seen.map((group, at) => examined(group, judged[at]?.asked === 0, ends));
  const known = groups.filter(({ spreads, alike }) => spreads.length > 0 || alike);
  const withGold = known.filter(({ accuracy }) => accuracy !== null);
  const estimate = (
    of: readonly Examined[],
    statistic: (of: readonly Examined[]) => number | null,
  ) => statistics.estimate(of, statistic, options);
  const rejudged = known.filter(({ movement }) => movement !== null);
  const bias = estimate(rejudged, (of) => rejudgingOf(of)?.bias ?? null);
  const spread = scoreVariance(known);
  const asked = sum(judged, (group) => group.asked);
  const costs = judged.map(({ costUsd }) => costUsd);
  const figures = {
    judge: label,
    groups: groups.length,
    judgings: {
      asked,
      valid: sum(judged, ({ judgings }) => judgings.length),
      repaired: sum(judged, ({ repaired }) => repaired),
    },
    variance: estimate(known, varianceOf),
    zeroVariance: estimate(known, zeroVarianceOf),
    accuracy: estimate(withGold, (of) => meanOf(of, ({ accuracy }) => accuracy)),
    rankAccuracy: estimate(withGold, (of) => meanOf(of, ({ rankAccuracy }) => rankAccuracy)),
    combined: estimate(withGold, combinedOf),
    noiseRatio: estimate(rejudged, noiseRatioOf),
    noise: estimate(rejudged, (of) => {
      const found = rejudgingOf(of);
      return found && Math.sqrt(found.noise);
    }),
    positionBias: bias,
    positionBiasInDeviations: bias && spread ? bias.value / Math.sqrt(spread) : null,
    saturation: estimate(known, saturation),
    costUsdPerJudging:
      asked > 0 && !costs.includes(null) ? sum(costs, (cost) => cost ?? 0) / asked : null,
    secondsPerJudging:
      asked > 0
        ? statistics.mean(judged.flatMap((group) => (group.asked > 0 ? [group.seconds] : [])))
        : null,
    errors: errorsOf(judged),
  };
  return { ...figures, verdict: verdictOf(figures) };
}

/** Outputs that a judging has no score for are left out of the group. */
function whole({ judgings }: GroupJudging, gold: readonly (number | null)[]): JudgedGroup {
  const outputs = judgings[0]?.scores.map((_, at) => at) ?? [];
  const scored = outputs.filter((at) => judgings.every(({ scores }) => scores[at] !== null));
  const kept = scored.length > 1 ? judgings : [];
  return {
    judgings: kept.map(({ scores, places }) => ({
      scores: scored.map((at) => scores[at] as number),
      places: places && scored.map((at) => places[at] as number),
    })),
    gold: scored.map((at) => gold[at] ?? null),
  };
}

function examined(group: JudgedGroup, alike: boolean, ends: ReadonlySet<number>): Examined {
  const scores = group.judgings.map((judging) => judging.scores);
  return {
    alike,
    spreads: scores.map(statistics.spreadOf),
    movement: statistics.movementOf(group),
    equal: scores.filter((one) => new Set(one).size === 1).length,
    accuracy: againstGold(group, statistics.accuracyOf),
    rankAccuracy: againstGold(group, statistics.rankAccuracyOf),
    atEnds: scores.flat().filter((score) => ends.has(score)).length,
  };
}

function againstGold(
  { judgings, gold }: JudgedGroup,
  measure: (scores: readonly number[], gold: readonly number[]) => number | null,
): number | null {
  const known = gold.flatMap((value, at) => (value === null ? [] : [at]));
  const values = judgings.flatMap(({ scores }) => {
    const pick = (of: readonly (number | null)[]) => known.map((at) => of[at] as number);
    return measure(pick(scores), pick(gold)) ?? [];
  });
  return values.length > 0 ? statistics.mean(values) : null;
}

/** Of a single judging, as training would see it: over the passes, the mean of each pass's figure. */
function varianceOf(groups: readonly Examined[]): number | null {
  const alike = groups.filter((group) => group.alike).length;
  const passes = Math.max(0, ...groups.map(({ spreads }) => spreads.length));
  const figures: number[] = [];
  for (let pass = 0; pass < passes; pass += 1) {
    const spreads = groups.flatMap((group) => group.spreads[pass] ?? []);
    const within = statistics.withinVariance(spreads);
    // Equal outputs have no variance, whatever a judge would say of them.
    if (within !== null) figures.push((within * spreads.length) / (spreads.length + alike));
  }
  if (figures.length > 0) return statistics.mean(figures);
  return alike > 0 ? 0 : null;
}

function zeroVarianceOf(groups: readonly Examined[]): number | null {
  const equal = sum(groups, (group) => (group.alike ? 1 : group.equal));
  const all = sum(groups, (group) => (group.alike ? 1 : group.spreads.length));
  return all > 0 ? equal / all : null;
}

function saturation(groups: readonly Examined[]): number | null {
  const scores = sum(groups, ({ spreads }) => sum(spreads, ({ count }) => count));
  return scores > 0 ? sum(groups, ({ atEnds }) => atEnds) / scores : null;
}

function meanOf(
  groups: readonly Examined[],
  value: (group: Examined) => number | null,
): number | null {
  const known = groups.flatMap((group) => value(group) ?? []);
  return known.length > 0 ? statistics.mean(known) : null;
}

function combinedOf(groups: readonly Examined[]): number | null {
  const variance = varianceOf(groups);
  const accuracy = meanOf(groups, (group) => group.accuracy);
  return variance === null || accuracy === null ? null : combinedScore(variance, accuracy);
}

/** The paper's predictor of the true gain: the mean of variance and accuracy. */
export function combinedScore(variance: number, accuracy: number): number {
  return (variance + accuracy) / 2;
}

function rejudgingOf(groups: readonly Examined[]) {
  return statistics.rejudging(groups.flatMap(({ movement }) => movement ?? []));
}

function scoreVariance(groups: readonly Examined[]): number | null {
  return meanOf(groups, ({ spreads }) =>
    spreads.length > 0 ? statistics.mean(spreads.map(({ within }) => within)) : null,
  );
}

function noiseRatioOf(groups: readonly Examined[]): number | null {
  const found = rejudgingOf(groups);
  const spread = scoreVariance(groups);
  return found && spread ? found.noise / spread : null;
}

function sum<One>(of: readonly One[], value: (one: One) => number): number {
  return of.reduce((total, one) => total + value(one), 0);
}

function errorsOf(judged: readonly GroupJudging[]): JudgeReport["errors"] {
  const counts = new Map<string, number>();
  for (const { error } of judged) if (error) counts.set(error, (counts.get(error) ?? 0) + 1);
  return [...counts]
    .map(([message, count]) => ({ message, count }))
    .sort((a, b) => b.count - a.count)
    .slice(0, 5);
}

export interface DoctorOptions {
  /** How often each group is judged, each time in another order. @default 2 */
  passes?: number | undefined;
  /** Seed of the orders and of the intervals. @default 0 */
  seed?: number | undefined;
  /** What an output is worth in truth; null where nobody knows. @default its reward */
  gold?: ((trajectory: TrajectoryGroup["trajectories"][number]) => number | null) | undefined;
  onProgress?: ((done: number, total: number, judge: string) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Groups in flight at one judge: RULER has its own limit below it. */
const inFlight = 16;

/** Has each judge judge each group, and says what it is worth as a teacher of the policy that played them. */
export async function examineJudges(
  groups: readonly TrajectoryGroup[],
  judges: readonly ExaminedJudge[],
  options: DoctorOptions = {},
): Promise<JudgeReport[]> {
  const { passes = 2, seed = 0, gold = ({ reward }) => reward, onProgress } = options;
  // One that ends the examination ends the others: what they would ask for costs money.
  const ending = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, ending.signal]) : ending.signal;
  // Each judging that waits listens to it.
  setMaxListeners(0, signal);
  const truths = groups.map(({ trajectories }) => trajectories.map(gold));
  // Gold must not be seen: a judge gets the outputs as if nobody had scored them.
  const shown = groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((trajectory) => ({ ...trajectory, reward: null })),
  }));
  const reports: JudgeReport[] = [];
  for (const judge of judges) {
    const judged: GroupJudging[] = [];
    let [next, done] = [0, 0];
    const work = async () => {
      for (;;) {
        const at = next;
        next += 1;
        const group = shown[at];
        if (!group) return;
        signal.throwIfAborted();
        judged[at] = await judge.judge(group, { passes, seed: seed + at, signal });
        done += 1;
        onProgress?.(done, shown.length, judge.label);
      }
    };
    const workers = Array.from({ length: Math.min(inFlight, shown.length) }, work);
    await Promise.all(workers).catch((error: unknown) => {
      ending.abort(error);
      throw error;
    });
    reports.push(judgeReport(judge, judged, truths, { seed }));
  }
  return reports;
}
