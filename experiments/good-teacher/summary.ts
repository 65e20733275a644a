// What the seeds say together: how well each figure orders the rewards by their true gain.
import { mulberry32 } from "@hone/core";
import { teacherOrder, type PolicyGain, type TeacherOrder, type TeacherRow } from "@hone/recipes";

const figures = ["combined", "accuracy", "onPolicyAccuracy", "variance"] as const;
type Figure = (typeof figures)[number];

/** 95%: a bootstrap over the rewards, drawn within each seed. */
interface Interval {
  value: number | null;
  low: number | null;
  high: number | null;
}

export interface Order {
  figure: Figure;
  /** Spearman's rank correlation with the gain, within each seed. */
  bySeed: (number | null)[];
  mean: Interval;
  /** Of the rewards of all seeds as one list. */
  pooled: Interval;
  /** How much better the combined score orders them, in the mean of the seeds; the same draws for both. */
  combinedAhead: Interval;
}

export function ordersOf(bySeed: ReadonlyMap<number, readonly TeacherRow[]>): Order[] {
  const seeds = [...bySeed.values()];
  const random = mulberry32(7);
  const drawn = Array.from({ length: 2000 }, () =>
    seeds.map((rows) => rows.map(() => rows[Math.floor(random() * rows.length)] as TeacherRow)),
  );
  const within = (of: readonly (readonly TeacherRow[])[]) => of.map((rows) => teacherOrder(rows));
  const seen = { within: within(seeds), pooled: teacherOrder(seeds.flat()) };
  const draws = drawn.map((of) => ({ within: within(of), pooled: teacherOrder(of.flat()) }));
  const interval = (of: (one: typeof seen) => number | null): Interval => {
    const values = draws.flatMap((one) => of(one) ?? []).sort((a, b) => a - b);
    const at = (share: number) => values[Math.round(share * (values.length - 1))] ?? null;
    return { value: of(seen), low: at(0.025), high: at(0.975) };
  };
  return figures.map((figure) => ({
    figure,
    bySeed: seen.within.map((order) => order[figure]),
    mean: interval((one) => meanOf(valuesOf(one.within, figure))),
    pooled: interval((one) => one.pooled[figure]),
    combinedAhead: interval(({ within: orders }) =>
      meanOf(
        orders.map(({ combined, [figure]: other }) =>
          combined === null || other === null ? null : combined - other,
        ),
      ),
    ),
  }));
}

export function summaryText(
  bySeed: ReadonlyMap<number, readonly TeacherRow[]>,
  orders: readonly Order[],
  controls: readonly PolicyGain[],
): string {
  const said = (value: number | null) => (value === null ? "none" : value.toFixed(2));
  const within = ({ value, low, high }: Interval) => `${said(value)} [${said(low)}, ${said(high)}]`;
  const rewards = [...bySeed.values()][0]?.map(({ reward }) => reward) ?? [];
  const rows = rewards.map((reward) => {
    const of = [...bySeed.values()].flatMap((seed) => seed.filter((row) => row.reward === reward));
    const mean = (value: (row: TeacherRow) => number) => said(meanOf(of.map(value)));
    return [
      ...[reward, mean(({ variance }) => variance)],
      ...[mean(({ accuracy }) => accuracy.onPolicy), mean(({ accuracy }) => accuracy.offPolicy)],
      mean(({ combined }) => combined),
      `${mean(({ gain }) => gain)} (${of.map(({ gain }) => gain.toFixed(2)).join(", ")})`,
    ].join(" | ");
  });
  return [
    "reward | variance | accuracy on-policy | off-policy | combined | true gain (by seed)",
    ...rows,
    `shuffled rewards | | | | | ${controls.map(({ gain, low, high }) => within({ value: gain, low, high })).join(", ")}`,
    "",
    ...orders.map(
      ({ figure, bySeed: values, mean, pooled, combinedAhead }) =>
        `rank correlation of ${figure} with the gain: ${within(mean)} (${values.map(said).join(", ")}), pooled ${within(pooled)}${figure === "combined" ? "" : `; combined is ahead by ${within(combinedAhead)}`}`,
    ),
  ].join("\n");
}

function valuesOf(orders: readonly TeacherOrder[], figure: Figure): (number | null)[] {
  return orders.map((order) => order[figure]);
}

function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length > 0 ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
}
