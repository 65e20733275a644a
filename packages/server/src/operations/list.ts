import { HoneError, type ListOperations, type OperationList } from "@hone/core";
import type { Models } from "../policies/models.ts";
import type { Store } from "../store/store.ts";
import { operationInfo, readOperation } from "./records.ts";

/** The operations of a model that this key submitted, the newest first. */
export async function listOperations(
  { store, models }: { store: Store; models: Models },
  keyId: string,
  model: string,
  { limit, after, type }: ListOperations,
): Promise<OperationList> {
  models.require(model);
  await store.flush();
  const last =
    after === undefined
      ? { number: Number.MAX_SAFE_INTEGER }
      : (store.get(
          "SELECT number FROM operations WHERE id = ? AND model = ? AND key_id = ?",
          after,
          model,
          keyId,
        ) as { number: number } | undefined);
  if (!last) {
    throw new HoneError(`There is no operation "${String(after).slice(0, 80)}" in this list.`, {
      code: "operation_not_found",
      param: "after",
    });
  }
  const rows = store.all(
    `SELECT *,
       (SELECT min(json_extract(data, '$.at')) FROM operation_events e
        WHERE e.operation_id = o.id AND json_extract(data, '$.type') = 'started') AS started_at,
       (SELECT max(json_extract(data, '$.at')) FROM operation_events e
        WHERE e.operation_id = o.id AND json_extract(data, '$.type') = 'ended') AS ended_at
     FROM operations o WHERE model = ? AND key_id = ? AND number < ? AND (? IS NULL OR type = ?)
     ORDER BY number DESC LIMIT ?`,
    model,
    keyId,
    last.number,
    type ?? null,
    type ?? null,
    limit + 1,
  ) as { started_at: number | null; ended_at: number | null }[];
  const data = rows.slice(0, limit).map((row) => ({
    ...operationInfo(readOperation(row)),
    startedAt: row.started_at,
    endedAt: row.ended_at,
  }));
  return { object: "list", data, has_more: rows.length > limit };
}
