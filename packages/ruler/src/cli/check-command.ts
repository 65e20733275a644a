import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { HoneError } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import type { RewardFunction } from "../rewards/reward-function.ts";
import { combineRewards } from "../rewards/combine-rewards.ts";
import { deviationOf, meanOf } from "../rewards/statistics.ts";
import { table } from "./table.ts";
import { readTrajectoryFile } from "./trajectory-file.ts";

interface RewardReport {
  trajectories: number;
  groups: number;
  /** Share of trajectories that the function does not apply to. */
  nullShare: number;
  mean: number | null;
  std: number | null;
  /** At 0, 25, 50, 75 and 100 percent of the rewards. */
  quantiles: (number | null)[];
  distribution: { from: number; to: number; count: number }[];
  /** Groups with two rewards or more that are all the same: nothing is learnt from them. */
  withoutVariance: number;
  /** Groups with fewer than two rewards. */
  tooSmall: number;
  /** Of the variance, the share that lies within groups: only that part teaches. */
  withinGroups: number | null;
}

/** Prints what a reward function makes of recorded trajectories. 1 where no group would train. */
export async function checkCommand(options: {
  file: string;
  reward: string;
  json: boolean;
}): Promise<number> {
  const groups = await readTrajectoryFile(options.file);
  const report = await checkReward(groups, await loadReward(options.reward));
  if (options.json) console.log(JSON.stringify(report, null, 2));
  else console.log(reportText(report));
  return report.withoutVariance + report.tooSmall < report.groups ? 0 : 1;
}

async function checkReward(
  groups: readonly TrajectoryGroup[],
  fn: RewardFunction,
): Promise<RewardReport> {
  const scored = await combineRewards([{ fn, name: fn.name || "reward" }]).score(groups);
  const byGroup = scored.groups.map(({ trajectories }) => trajectories.map(({ reward }) => reward));
  const all = byGroup.flat();
  const values = all.filter((reward) => reward !== null).sort((a, b) => a - b);
  const known = byGroup.map((rewards) => rewards.filter((reward) => reward !== null));
  const compared = known.filter((rewards) => rewards.length > 1);
  const at = (share: number): number | null =>
    values[Math.round(share * (values.length - 1))] ?? null;
  return {
    trajectories: all.length,
    groups: groups.length,
    nullShare: all.length > 0 ? (all.length - values.length) / all.length : 0,
    mean: meanOf(values),
    std: deviationOf(values),
    quantiles: [0, 0.25, 0.5, 0.75, 1].map(at),
    distribution: histogram(values),
    withoutVariance: compared.filter((rewards) => new Set(rewards).size === 1).length,
    tooSmall: groups.length - compared.length,
    withinGroups: withinShare(compared),
  };
}

/** Rewards of few values are counted by value, others in ten bins. */
function histogram(values: readonly number[]): RewardReport["distribution"] {
  const distinct = [...new Set(values)];
  if (distinct.length <= 10) {
    return distinct.map((value) => ({
      from: value,
      to: value,
      count: values.filter((other) => other === value).length,
    }));
  }
  const least = values[0] ?? 0;
  const width = ((values.at(-1) ?? 0) - least) / 10;
  return Array.from({ length: 10 }, (_, bin) => ({
    from: least + bin * width,
    to: least + (bin + 1) * width,
    count: values.filter((value) => Math.min(9, Math.floor((value - least) / width)) === bin)
      .length,
  }));
}

function withinShare(groups: readonly (readonly number[])[]): number | null {
  const centre = meanOf(groups.flat());
  if (centre === null) return null;
  let within = 0;
  let total = 0;
  for (const rewards of groups) {
    const mean = meanOf(rewards) ?? 0;
    for (const reward of rewards) {
      within += (reward - mean) ** 2;
      total += (reward - centre) ** 2;
    }
  }
  return total > 0 ? within / total : null;
}

function reportText(report: RewardReport): string {
  const most = Math.max(1, ...report.distribution.map(({ count }) => count));
  const bars = report.distribution.map(({ from, to, count }) => [
    from === to ? from.toFixed(3) : `${from.toFixed(3)} to ${to.toFixed(3)}`,
    count,
    "#".repeat(Math.round((count / most) * 40)).padEnd(40),
  ]);
  const percent = (share: number): string => `${(share * 100).toFixed(1)}%`;
  const rows: (string | number | null)[][] = [
    ["trajectories", report.trajectories],
    ["groups", report.groups],
    ["does not apply (null)", percent(report.nullShare)],
    ["mean", report.mean],
    ["standard deviation", report.std],
    ["least", report.quantiles[0] ?? null],
    ["median", report.quantiles[2] ?? null],
    ["greatest", report.quantiles[4] ?? null],
    ["groups without variance", report.withoutVariance],
    ["groups with fewer than two rewards", report.tooSmall],
    [
      "variance that lies within groups",
      report.withinGroups === null ? null : percent(report.withinGroups),
    ],
  ];
  return `${table(rows)}\n\n${table(bars)}`;
}

/** `./reward.ts`, or `./reward.ts#name` for one of several exports. */
async function loadReward(reference: string): Promise<RewardFunction> {
  const hash = reference.lastIndexOf("#");
  const path = hash < 0 ? reference : reference.slice(0, hash);
  const name = hash < 0 ? null : reference.slice(hash + 1);
  let module: Record<string, unknown>;
  try {
    module = (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>;
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause);
    const typescript = /\.[cm]?tsx?$/.test(path)
      ? " Node before 22.18 reads no TypeScript: run `node --import tsx node_modules/@hone/ruler/dist/cli/cli.js check …`."
      : "";
    throw badReward(`${path} cannot be loaded: ${said}${typescript}`, cause);
  }
  const functions = Object.entries(module).filter(([, value]) => typeof value === "function");
  const chosen = name === null ? functions : functions.filter(([key]) => key === name);
  const [only, more] = chosen;
  if (only && !more) return only[1] as RewardFunction;
  const names = functions.map(([key]) => key).join(", ") || "none";
  throw badReward(
    name === null
      ? `${path} exports ${functions.length} functions (${names}). Name one: ${path}#name.`
      : `${path} exports no function "${name}". It exports ${names}.`,
    undefined,
  );
}

function badReward(message: string, cause: unknown): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "reward", cause });
}
