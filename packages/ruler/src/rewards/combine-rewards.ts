import { HoneError, requireNumber } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import pLimit from "p-limit";
import { refuseUnknownOptions } from "@hone/core";
import { aggregate } from "./aggregate.ts";
import type { Aggregation, ScaleRewards } from "./aggregate.ts";
import type { RewardFunction } from "./reward-function.ts";
import { deviationOf, meanOf } from "./statistics.ts";

export interface WeightedReward {
  fn: RewardFunction;
  /** @default 1 */
  weight?: number | undefined;
  /** The name in metrics. @default the function's own name */
  name?: string | undefined;
}

export interface CombineOptions {
  /** @default "sum_then_normalize" */
  aggregation?: Aggregation | undefined;
  /** Scales the reported advantages. The training step has an option of its own. @default "group" */
  scaleRewards?: ScaleRewards | undefined;
  /** Trajectories that are scored at the same time. @default 16 */
  concurrency?: number | undefined;
}

export interface CombinedRewards {
  /** New groups with the rewards, and with `rewards/{name}` in each trajectory's metrics. */
  groups: TrajectoryGroup[];
  /** For each group and member, the advantage that TRL would compute from the same values. */
  advantages: number[][];
  /** By TRL's names: rewards/{name}/mean and /std, reward, reward_std, frac_reward_zero_std. Null: no value. */
  metrics: Record<string, number | null>;
}

export interface RewardCombiner {
  readonly names: readonly string[];
  score(
    groups: readonly TrajectoryGroup[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<CombinedRewards>;
}

/**
 * Makes one reward of several functions, as TRL does. Functions that return null for a trajectory are left out of
 * its sum. A trajectory to which no function applies has no reward (null), and moves nothing.
 *
 * With `normalize_then_sum` the reward is what TRL uses as the advantage, so train it with `scaleRewards: "none"`.
 */
export function combineRewards(
  rewards: readonly WeightedReward[],
  options: CombineOptions = {},
): RewardCombiner {
  refuseUnknownOptions("combineRewards()", options, ["aggregation", "scaleRewards", "concurrency"]);
  const { aggregation = "sum_then_normalize", scaleRewards = "group" } = options;
  oneOf("aggregation", aggregation, ["sum_then_normalize", "normalize_then_sum"]);
  oneOf("scaleRewards", scaleRewards, ["group", "batch", "none"]);
  const concurrency = requireNumber("concurrency", options.concurrency ?? 16, {
    least: 1,
    whole: true,
  });
  const functions = rewards.map(({ fn, weight = 1, ...rest }) => {
    // `{fn: () => …}` makes the function's own name "fn", which tells nothing.
    const name = rest.name ?? (fn.name === "fn" ? "" : fn.name);
    requireNumber(`the weight of "${name}"`, weight, {});
    return { fn, weight, name };
  });
  const names = functions.map(({ name }) => name);
  checkNames(names);
  const weights = functions.map(({ weight }) => weight);
  return {
    names,
    async score(groups, { signal } = {}) {
      const limit = pLimit(concurrency);
      const values = await Promise.all(
        groups.map((group) =>
          Promise.all(
            group.trajectories.map((trajectory, index) =>
              limit(() =>
                Promise.all(
                  functions.map(async ({ fn, name }) => {
                    signal?.throwIfAborted();
                    return await valueOf(fn, name, trajectory, { group, index, signal });
                  }),
                ),
              ),
            ),
          ),
        ),
      );
      const { sums, advantages } = aggregate(values, weights, { aggregation, scaleRewards });
      const rewardOf = (at: number): number | null => {
        const sum = sums[at] ?? null;
        return aggregation === "sum_then_normalize" || sum === null ? sum : (advantages[at] ?? 0);
      };
      warnOfUnscored(sums);
      let at = 0;
      const scored = groups.map((group, groupIndex) => {
        const trajectories = group.trajectories.map((trajectory, index): Trajectory => {
          const reward = rewardOf(at);
          at += 1;
          const row = values[groupIndex]?.[index] ?? [];
          return {
            ...trajectory,
            reward,
            metrics: { ...trajectory.metrics, ...byName(names, row) },
          };
        });
        return { ...group, trajectories, metadata: metadataOf(group, trajectories) };
      });
      let from = 0;
      const split = <T>(flat: readonly T[]): T[][] => {
        from = 0;
        return groups.map(({ trajectories }) => {
          from += trajectories.length;
          return flat.slice(from - trajectories.length, from);
        });
      };
      return {
        groups: scored,
        advantages: split(advantages),
        metrics: metricsOf(names, values.flat(), split(sums)),
      };
    },
  };
}

async function valueOf(
  fn: RewardFunction,
  name: string,
  trajectory: Trajectory,
  context: Parameters<RewardFunction>[1],
): Promise<number | null> {
  const where = `The reward function "${name}" on trajectory ${context.index} of group ${context.group.id}`;
  let value: unknown;
  try {
    value = await fn(trajectory, context);
  } catch (cause) {
    context.signal?.throwIfAborted();
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new HoneError(`${where} threw: ${message}`, { code: "invalid_reward", cause });
  }
  if (value === null || (typeof value === "number" && Number.isFinite(value))) return value;
  throw new HoneError(
    `${where} returned ${typeof value === "number" ? value : typeof value}. Return a finite number, or null where it does not apply.`,
    { code: "invalid_reward" },
  );
}

/**
 * A judge's mark that it gave no rewards no longer holds once there is one: `train` would drop the group. Where there
 * is still none, it says why.
 */
function metadataOf(
  { metadata }: TrajectoryGroup,
  trajectories: readonly Trajectory[],
): TrajectoryGroup["metadata"] {
  const { failed, ...rest } = metadata;
  const isMark = failed === "judge_failed" || failed === "zero_variance";
  return isMark && trajectories.some(({ reward }) => reward !== null) ? rest : metadata;
}

function warnOfUnscored(sums: readonly (number | null)[]): void {
  const count = sums.filter((sum) => sum === null).length;
  if (count === 0) return;
  console.warn(
    `combineRewards: no function applies to ${count} of ${sums.length} trajectories. They have no reward and move nothing.`,
  );
}

function byName(names: readonly string[], row: readonly (number | null)[]): Record<string, number> {
  const values: Record<string, number> = {};
  for (const [at, name] of names.entries()) {
    const value = row[at] ?? null;
    if (value !== null) values[`rewards/${name}`] = value;
  }
  return values;
}

function metricsOf(
  names: readonly string[],
  rows: readonly (readonly (number | null)[])[],
  sums: readonly (readonly (number | null)[])[],
): Record<string, number | null> {
  const metrics: Record<string, number | null> = {};
  for (const [at, name] of names.entries()) {
    const column = rows.map((row) => row[at] ?? null);
    metrics[`rewards/${name}/mean`] = meanOf(column);
    metrics[`rewards/${name}/std`] = deviationOf(column);
  }
  metrics["reward"] = meanOf(sums.flat());
  metrics["reward_std"] = deviationOf(sums.flat());
  const flat = sums.filter((group) => {
    const deviation = group.length > 1 ? deviationOf(group) : 0;
    return deviation !== null && deviation <= 1e-8;
  });
  metrics["frac_reward_zero_std"] = sums.length > 0 ? flat.length / sums.length : null;
  return metrics;
}

function checkNames(names: readonly string[]): void {
  if (names.length === 0) throw badConfig("combineRewards() needs at least one function.");
  for (const [at, name] of names.entries()) {
    if (!name) throw badConfig(`Reward function ${at} has no name. Give it one: {fn, name}.`);
    if (names.indexOf(name) !== at) {
      throw badConfig(`Two reward functions are called "${name}". Give one another name.`);
    }
  }
}

function oneOf(name: string, value: string, known: readonly string[]): void {
  if (known.includes(value)) return;
  throw badConfig(`${name} is one of ${known.join(", ")}, not "${value}".`);
}

function badConfig(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config" });
}
