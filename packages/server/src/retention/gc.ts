import { type GcReport, type gcRequestSchema, HoneError, policyName } from "@hone/core";
import { rm } from "node:fs/promises";
import type { z } from "zod";
import type { Checkpoints } from "../policies/checkpoints.ts";
import type { Models } from "../policies/models.ts";
import type { Clock } from "../ports/clock.ts";
import type { Store } from "../store/store.ts";
import type { Retention } from "./retention.ts";

type Removed = GcReport["removed"][number];

const rolloutsPerWrite = 50;

/** Rollouts that came to nothing. One that trained, or is claimed by an operation, is none of them. */
const abandoned = `status IN ('failed', 'expired') AND trained_by IS NULL`;

/** Removes what nobody needs any more. With `dryRun` it only says what. */
export async function collectGarbage(
  context: {
    store: Store;
    models: Models;
    checkpoints: Checkpoints;
    retention: Retention;
    clock: Clock;
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
  const freed = dryRun ? store.freeBytes() : await vacuum(store);
  return {
    object: "hone.gc",
    dryRun,
    removed,
    bytes: removed.reduce((total, { bytes }) => total + bytes, 0),
    databaseBytes: freed,
  };
}

/** Rewriting the database needs its size again on the disk; what was removed is gone either way. */
async function vacuum(store: Store): Promise<number> {
  if (store.freeBytes() === 0) return 0;
  try {
    return await store.vacuum();
  } catch (error) {
    if (HoneError.isInstance(error) && error.code === "disk_full") return 0;
    throw error;
  }
}

/** Folders that got their name and never a row. That of an operation which is to be completed is not one. */
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
      // Asked again: its commit may have ended meanwhile.
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

/** The rollouts themselves stay: their ids are taken, and say that they came to nothing. */
async function completions(
  context: { store: Store; clock: Clock },
  olderThanMs: number,
  dryRun: boolean,
): Promise<Removed[]> {
  const { store } = context;
  const before = Math.floor(context.clock() - olderThanMs);
  const rows = store.all(
    `SELECT r.id AS id, sum(length(c.prompt_suffix) + length(c.sampled) + length(c.logprobs)
              + length(c.messages) + length(c.answer) + coalesce(length(c.tools), 0)) AS bytes
     FROM rollouts r JOIN completions c ON c.rollout_id = r.id
     WHERE ${abandoned} AND closed_at < ? GROUP BY r.id`,
    before,
  ) as { id: string; bytes: number }[];
  if (rows.length === 0) return [];
  const doomed = dryRun ? [] : rows;
  for (let from = 0; from < doomed.length; from += rolloutsPerWrite) {
    await store.write(
      doomed.slice(from, from + rolloutsPerWrite).map(({ id }) => ({
        // An operation may have claimed it meanwhile.
        sql: `DELETE FROM completions WHERE rollout_id = ?
              AND rollout_id IN (SELECT id FROM rollouts WHERE ${abandoned})`,
        args: [id],
      })),
    );
  }
  const bytes = rows.reduce((total, row) => total + row.bytes, 0);
  return [{ kind: "completions", name: `${rows.length} rollouts`, bytes }];
}
