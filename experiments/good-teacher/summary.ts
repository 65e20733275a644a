// What the seeds say together: how well each figure orders the rewards by their true gain.
import { mulberry32 } from "@hone/core";
import { teacherOrder, type PolicyGain, type TeacherOrder, type TeacherRow } from "@hone/recipes";

const figures = ["combined", "accuracy", "onPolicyAccuracy", "variance"] as const;
type Figure = (typeof figures)[number];

export interface Order {
  figure: Figure;
  /** Spearman's rank correlation with the gain, within each seed. */
  bySeed: (number | null)[];
  mean: number | null;
  /** Of the mean, 95%: a bootstrap over the rewards, drawn within each seed. */
  low: number | null;
  high: number | null;
}

export function ordersOf(bySeed: ReadonlyMap<number, readonly TeacherRow[]>): Order[] {
  const seeds = [...bySeed.values()];
  const random = mulberry32(7);
  const drawn = Array.from({ length: 2000 }, () =>
    seeds.map((rows) =>
      teacherOrder(rows.map(() => rows[Math.floor(random() * rows.length)] as TeacherRow)),
    ),
  );
  return figures.map((figure) => {
    const of = (orders: readonly TeacherOrder[]) => orders.map((order) => order[figure]);
    const values = of(seeds.map((rows) => teacherOrder(rows)));
    const means = drawn.flatMap((orders) => meanOf(of(orders)) ?? []).sort((a, b) => a - b);
    const at = (share: number) => means[Math.round(share * (means.length - 1))] ?? null;
    return { figure, bySeed: values, mean: meanOf(values), low: at(0.025), high: at(0.975) };
  });
}

export function summaryText(
  bySeed: ReadonlyMap<number, readonly TeacherRow[]>,
  orders: readonly Order[],
  controls: readonly PolicyGain[],
): string {
  const said = (value: number | null) => (value === null ? "none" : value.toFixed(2));
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
    `shuffled rewards | | | | | ${controls.map(({ gain, low, high }) => `${said(gain)} [${said(low)}, ${said(high)}]`).join(", ")}`,
    "",
    ...orders.map(
      ({ figure, bySeed: values, mean, low, high }) =>
        `rank correlation of ${figure} with the gain: ${said(mean)} [${said(low)}, ${said(high)}] (${values.map(said).join(", ")})`,
    ),
  ].join("\n");
}

function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length > 0 ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
}
