import { type GcReport, type gcRequestSchema, HoneError, policyName } from "@hone/core";
import { rm } from "node:fs/promises";
import type { z } from "zod";
import type { Checkpoints } from "../policies/checkpoints.ts";
import type { Models } from "../policies/models.ts";
import type { Clock } from "../ports/clock.ts";
import type { Store } from "../store/store.ts";
import type { Retention } from "./retention.ts";

type Removed = GcReport["removed"][number];

/** How many rollouts one read and one write take. Others read and write in between. */
const rolloutsAtOnce = 250;

/**
 * Rollouts that came to nothing, a part of them at a time. Each statement checks again that a rollout neither
 * trained nor is claimed by an operation.
 */
const abandoned = `rollouts INDEXED BY rollouts_abandoned
  WHERE status IN ('failed', 'expired') AND trained_by IS NULL`;
const abandonedPart = `SELECT id FROM ${abandoned} AND (closed_at, rowid) > (?, ?) AND (closed_at, rowid) <= (?, ?)`;
const bytesOfPart = `SELECT count(DISTINCT rollout_id) AS rollouts,
  sum(length(prompt_suffix) + length(sampled) + length(logprobs) + length(messages) + length(answer)
    + coalesce(length(tools), 0)) AS bytes
  FROM completions WHERE rollout_id IN (${abandonedPart})`;

/** Removes what nobody needs any more. With `dryRun` it only says what. */
export async function collectGarbage(
  context: {
    store: Store;
    models: Models;
    checkpoints: Checkpoints;
    retention: Retention;
    clock: Clock;
    /** Nobody else uses the database meanwhile. */
    alone: boolean;
  },
  request: z.output<typeof gcRequestSchema>,
): Promise<GcReport> {
  const { store, checkpoints, retention } = context;
  const { dryRun, keep } = request;
  await store.flush();
  const policies = dryRun ? await retention.plan(keep) : await retention.apply({ keep });
  const removed: Removed[] = policies.map(({ kind, policy, bytes }) => ({
    kind,
    name: policy,
    bytes,
  }));
  removed.push(...(await orphanedFolders(context, dryRun)));
  for (const { path, bytes } of await checkpoints.orphanedStaging()) {
    if (!dryRun) await rm(path, { recursive: true, force: true });
    removed.push({ kind: "staging", name: path.split("/").slice(-3).join("/"), bytes });
  }
  if (request.olderThanMs !== undefined) {
    removed.push(...(await completions(context, request.olderThanMs, dryRun)));
  }
  const freed = dryRun ? store.freeBytes() : await vacuum(store, context.alone);
  return {
    object: "hone.gc",
    dryRun,
    removed,
    bytes: removed.reduce((total, { bytes }) => total + bytes, 0),
    databaseBytes: freed,
    databaseFreeBytes: store.freeBytes(),
  };
}

/** Rewriting the database needs as much disk again as its size. The rows are removed in any case. */
async function vacuum(store: Store, alone: boolean): Promise<number> {
  if (store.freeBytes() === 0) return 0;
  try {
    return await store.vacuum(alone);
  } catch (error) {
    if (HoneError.isInstance(error) && error.code === "disk_full") return 0;
    throw error;
  }
}

/**
 * Folders that got their name but no row. The folder of an operation that will still be completed is not among
 * them.
 */
async function orphanedFolders(
  context: { store: Store; models: Models; checkpoints: Checkpoints },
  dryRun: boolean,
): Promise<Removed[]> {
  const { store, models, checkpoints } = context;
  const found: Removed[] = [];
  for (const { name } of models.list()) {
    for (const step of await checkpoints.folders(name)) {
      if (models.policy(name, step)) continue;
      const manifest = await checkpoints.readManifest(name, step);
      const maker = store.get(
        "SELECT status FROM operations WHERE id = ?",
        manifest?.operationId ?? "",
      ) as { status: string } | undefined;
      // Looked at again, because the commit of its operation may have ended since the folders were listed.
      if (models.policy(name, step)) continue;
      if (maker?.status === "queued" || maker?.status === "running") continue;
      found.push({
        kind: "folder",
        name: policyName(name, step),
        bytes: await checkpoints.size(name, step),
      });
      if (!dryRun) await checkpoints.remove(name, step);
    }
  }
  return found;
}

/** Removes the completions. The rollouts stay: their ids remain taken, and say that they came to nothing. */
async function completions(
  context: { store: Store; clock: Clock },
  olderThanMs: number,
  dryRun: boolean,
): Promise<Removed[]> {
  const { store } = context;
  const before = Math.floor(context.clock() - olderThanMs);
  let rollouts = 0;
  let bytes = 0;
  for (let from = [0, 0]; ;) {
    const rows = (await store.query(
      `SELECT closed_at, rowid AS place FROM ${abandoned} AND (closed_at, rowid) > (?, ?) AND closed_at < ?
       ORDER BY closed_at, rowid LIMIT ?`,
      ...from,
      before,
      rolloutsAtOnce,
    )) as { closed_at: number; place: number }[];
    const last = rows.at(-1);
    if (!last) break;
    const to = [last.closed_at, last.place];
    const [found] = (await store.query(bytesOfPart, ...from, ...to)) as [Part];
    rollouts += found.rollouts;
    bytes += found.bytes ?? 0;
    if (!dryRun && found.rollouts > 0) {
      const sql = `DELETE FROM completions WHERE rollout_id IN (${abandonedPart})`;
      await store.write([{ sql, args: [...from, ...to], long: true }]);
    }
    from = to;
  }
  return rollouts === 0 ? [] : [{ kind: "completions", name: `${rollouts} rollouts`, bytes }];
}

interface Part {
  rollouts: number;
  bytes: number | null;
}
