import { compare, type TrajectoryGroup } from "@hone/client";
import type { Results } from "../inbox/results.ts";

export type Way = "sampled" | "greedy";

/** What a judge said to RULER; the base says the same under each name. */
export const keyOf = (arm: string, seed: number, way: Way): string => `${arm} ${seed} ${way}`;

/** What a trained arm is held against beside the base: the same with shuffled labels. */
const controlOf = (arm: string): string => `${arm}-control`;

const share = (value: number) => value.toFixed(2);

function figures(before: readonly TrajectoryGroup[], after: readonly TrajectoryGroup[]): string {
  const found = compare(before, after, { metric: "in_order" });
  return `${share(found.before)} → ${share(found.after)} [${share(found.low)}, ${share(found.high)}]`;
}

/** A row for each arm: pairs in order before and after by seed, all together, beside its control, and valid answers. */
export function rowsOf(
  results: Results,
  arms: readonly string[],
  seeds: readonly number[],
  way: Way,
): Record<string, string>[] {
  const of = (arm: string, seed: number) => results[keyOf(arm, seed, way)] ?? [];
  return arms.flatMap((arm) => {
    const done = seeds.filter((seed) => of(arm, seed).length > 0);
    if (done.length === 0) return [];
    const all = (name: string, among: readonly number[]) => among.flatMap((seed) => of(name, seed));
    const row: Record<string, string> = { arm };
    for (const seed of done) row[`seed ${seed}`] = figures(of("base", seed), of(arm, seed));
    row["together"] = figures(all("base", done), all(arm, done));
    const both = done.filter((seed) => of(controlOf(arm), seed).length > 0);
    if (both.length > 0) row["control → this"] = figures(all(controlOf(arm), both), all(arm, both));
    const valid = all(arm, done).map((group) => group.trajectories[0]?.metrics["valid"] ?? 0);
    row["valid"] = share(valid.reduce((sum, one) => sum + one, 0) / valid.length);
    return [row];
  });
}
