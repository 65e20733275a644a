import { mulberry32, shuffledIndices, type Trajectory, type TrajectoryGroup } from "@hone/core";
import pLimit from "p-limit";
import { scenarioKey } from "../training/scenarios.ts";
import { heldOutMetric } from "../stopping/step-figures.ts";
import { warn } from "../warn.ts";
import type { HeldOutJudge, PreferBaseline } from "./task.ts";

/** The metric that says whether a held-out answer is better than the frozen baseline's: 1, 0 or .5. */
export const winMetric = "wins_baseline";

interface How {
  concurrency: number;
  signal: AbortSignal;
  /** What the judge says of its costs. */
  onCost: (usd: number) => void;
}

/** How many rollouts of a step the held-out judge sees: of 32 the mean is known to about a tenth of a 0–1 scale. */
const ofAStep = 32;

/** Asks a judge that never trains about some rollouts, drawn by the seed, or about all. Rewards stay as they are. */
export async function askHeldOutJudge(
  judge: HeldOutJudge<unknown>,
  groups: readonly TrajectoryGroup[],
  { seed, ...how }: How & { seed: number | null },
): Promise<TrajectoryGroup[]> {
  const all = groups.flatMap(({ trajectories, scenario }) =>
    trajectories.map((trajectory) => ({ trajectory, scenario })),
  );
  const order = seed === null ? all.keys() : shuffledIndices(all.length, mulberry32(seed));
  const asked = [...order].slice(0, seed === null ? all.length : ofAStep);
  const ask = ({ trajectory, scenario }: (typeof all)[number]) =>
    judge(trajectory, { scenario, signal: how.signal });
  const scores = await askAll(
    asked.flatMap((at) => all[at] ?? []),
    ask,
    "held-out judge",
    how,
  );
  return withMetric(groups, heldOutMetric, scores);
}

/** Asks which of two answers to a scenario is better: the trained policy's or the frozen baseline's. */
export async function askWins(
  prefer: PreferBaseline<unknown>,
  groups: readonly TrajectoryGroup[],
  baseline: readonly TrajectoryGroup[],
  how: How,
): Promise<TrajectoryGroup[]> {
  const frozen = new Map(
    baseline.map(({ scenario, trajectories }) => [scenarioKey(scenario), trajectories[0]]),
  );
  const pairs = groups.flatMap(({ scenario, trajectories: [trajectory] }) => {
    const other = frozen.get(scenarioKey(scenario));
    return trajectory && other ? [{ trajectory, other, scenario }] : [];
  });
  const ask = ({ trajectory, other, scenario }: (typeof pairs)[number]) =>
    prefer(trajectory, other, { scenario, signal: how.signal });
  return withMetric(groups, winMetric, await askAll(pairs, ask, "prefer", how));
}

/** A judge that fails loses nothing: its score is missing, and it is said once for all that failed. */
async function askAll<One extends { trajectory: Trajectory }>(
  asked: readonly One[],
  ask: (one: One) => unknown,
  what: string,
  { concurrency, signal, onCost }: How,
): Promise<Map<Trajectory, number>> {
  const limit = pLimit(concurrency);
  const scores = new Map<Trajectory, number>();
  const failures: string[] = [];
  await Promise.all(
    asked.map((one) =>
      limit(async () => {
        if (signal.aborted) return;
        try {
          const given = await ask(one);
          const { score, costUsd = 0 } = isWithCost(given)
            ? given
            : { score: given as number | null };
          onCost(costUsd);
          if (score === null) return;
          if (typeof score !== "number" || !Number.isFinite(score)) {
            throw new TypeError(`it gave ${JSON.stringify(score)}, and not a number or null`);
          }
          scores.set(one.trajectory, score);
        } catch (error) {
          failures.push(error instanceof Error ? error.message : String(error));
        }
      }),
    ),
  );
  signal.throwIfAborted();
  if (failures.length > 0) {
    warn(
      `The ${what} failed for ${failures.length} of ${asked.length} rollouts, which count for no alarm: ${failures[0]}`,
    );
  }
  return scores;
}

function isWithCost(given: unknown): given is { score: number | null; costUsd?: number } {
  return typeof given === "object" && given !== null && "score" in given;
}

function withMetric(
  groups: readonly TrajectoryGroup[],
  metric: string,
  scores: ReadonlyMap<Trajectory, number>,
): TrajectoryGroup[] {
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => {
      const score = scores.get(one);
      return score === undefined ? one : { ...one, metrics: { ...one.metrics, [metric]: score } };
    }),
  }));
}
