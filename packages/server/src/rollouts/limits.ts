import { HoneError, type PatchRollout } from "@hone/core";
import type { RolloutRecord } from "./records.ts";

/** Limit of a rollout's metrics and metadata together, as JSON, over all PATCHes. */
const maxNotesBytes = 256 * 1024;
const maxNotesKeys = 4096;
/** Limit of its logs as JSON, which each PATCH replaces, and of its error. */
const maxLogsBytes = 1024 * 1024;

export type Notes = Pick<RolloutRecord, "metrics" | "metadata" | "logs" | "error">;

/** What a rollout holds after a PATCH. Throws `invalid_request` past a limit, and the rollout stays as it was. */
export function mergeNotes(record: Notes, body: PatchRollout): Notes {
  const metrics = { ...record.metrics, ...body.metrics };
  const metadata = { ...record.metadata, ...body.metadata };
  const { logs = record.logs, error = record.error } = body;
  // Only a PATCH that makes it larger is refused, so a rollout past a limit can still get its reward and end.
  if (body.metrics !== undefined || body.metadata !== undefined) {
    const param = body.metadata === undefined ? "metrics" : "metadata";
    const keys = Object.keys(metrics).length + Object.keys(metadata).length;
    if (keys > maxNotesKeys) {
      throw past(param, `${keys} metrics and metadata, and at most ${maxNotesKeys} are kept`);
    }
    refuseLarger([metrics, metadata], maxNotesBytes, param, "metrics and metadata");
  }
  if (body.logs !== undefined) refuseLarger(logs, maxLogsBytes, "logs", "logs");
  if (body.error !== undefined) refuseLarger(error, maxLogsBytes, "error", "an error");
  return { metrics, metadata, logs, error };
}

function refuseLarger(value: unknown, limit: number, param: string, what: string): void {
  const bytes = Buffer.byteLength(JSON.stringify(value));
  if (bytes <= limit) return;
  throw past(param, `${what} of ${bytes} bytes as JSON, and at most ${limit} are kept`);
}

function past(param: string, what: string): HoneError {
  return new HoneError(
    `The rollout would have ${what}. Send less; what it had is kept, and it can be ended.`,
    { code: "invalid_request", param },
  );
}
