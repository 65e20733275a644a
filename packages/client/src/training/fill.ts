import { refuseUnknownOptions, requireNumber, requireObject, wrongKind } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { requireFunction } from "../argument-kinds.ts";
import type { Batch } from "./batch.ts";
import { whyGroupNotCompared } from "./compared.ts";

export interface FillOptions {
  /** How many times the batch's scenarios may be drawn at most, the first ones included. @default 3 */
  maxFactor?: number | undefined;
}

/** What filling a batch took. */
export interface FillCounts {
  /** Scenarios of the batch: as many groups are to differ in their rewards. */
  wanted: number;
  /** Scenarios that were played, the first ones included. */
  drawn: number;
  /** Groups whose rewards were all equal. */
  equal: number;
  /** Groups that can be compared. */
  kept: number;
  /** Equal groups that no other scenario replaced, because the bound was reached. */
  missing: number;
}

/**
 * Plays the batch, and then another scenario for each group whose rewards were all equal, until no such group is
 * without a replacement or `maxFactor` is reached. This is DAPO's dynamic sampling
 * (https://arxiv.org/abs/2503.14476, 3.2). The drawn scenarios belong to the batch: its cursor is behind them.
 *
 * Groups that could not be compared for another reason, such as a failed judge, are not replaced. All groups are
 * given back: pass all of them to `train`, which leaves the equal ones out and says so.
 */
export async function fillBatch<Scenario>(
  batch: Batch<Scenario>,
  play: (scenarios: readonly Scenario[]) => Promise<TrajectoryGroup[]>,
  options: FillOptions = {},
): Promise<{ groups: TrajectoryGroup[]; fill: FillCounts }> {
  requireFunction("fillBatch()", play, "play");
  const { maxFactor } = readFill("fillBatch()", options);
  requireBatch("fillBatch()", batch);
  const wanted = batch.scenarios.length;
  const most = Math.floor(wanted * maxFactor);
  const groups = [...(await play(batch.scenarios))];
  let drawn = wanted;
  let missing = countEqual(groups);
  while (missing > 0 && drawn < most) {
    const scenarios = batch.draw(Math.min(missing, most - drawn));
    const more = await play(scenarios);
    groups.push(...more);
    drawn += scenarios.length;
    missing += countEqual(more) - scenarios.length;
  }
  const kept = groups.filter((group) => whyGroupNotCompared(group) === null).length;
  return { groups, fill: { wanted, drawn, equal: countEqual(groups), kept, missing } };
}

/** The options of a fill, checked, with their defaults. */
export function readFill(where: string, options: FillOptions): { maxFactor: number } {
  refuseUnknownOptions(where, options, ["maxFactor"]);
  const { maxFactor = 3 } = options;
  requireNumber("maxFactor", maxFactor, { least: 1, most: 100 });
  return { maxFactor };
}

function countEqual(groups: readonly TrajectoryGroup[]): number {
  return groups.filter((group) => whyGroupNotCompared(group) === "zero_variance").length;
}

/** A batch as `batches` deals it out: its cursor alone will not do. */
function requireBatch(where: string, batch: unknown): void {
  const wanted = "a batch, as model.batches() deals it out, as batch";
  requireObject(where, batch, wanted, "batch");
  if (!("scenarios" in batch && "draw" in batch)) throw wrongKind(where, wanted, batch, "batch");
}
