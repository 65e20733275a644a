import { HoneError, type ListOperations, type OperationList } from "@hone/core";
import type { Models } from "../policies/models.ts";
import type { Statement, Store } from "../store/store.ts";
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
  const { sql, args } = selectPage(keyId, model, { before: last.number, type, limit });
  const rows = (await store.query(sql, ...args)) as {
    started_at: number | null;
    ended_at: number | null;
  }[];
  const data = rows.slice(0, limit).map((row) => ({
    ...operationInfo(readOperation(row)),
    startedAt: row.started_at,
    endedAt: row.ended_at,
  }));
  return { object: "list", data, has_more: rows.length > limit };
}

/** Of an operation what a list shows: what it was asked to do, what it does and the logprobs of a forward may be large. */
function selectPage(
  keyId: string,
  model: string,
  page: { before: number; type: ListOperations["type"]; limit: number },
): Statement {
  const typed = page.type === undefined ? "" : "AND type = ?";
  const time = (type: "started" | "ended"): string =>
    `(SELECT json_extract(data, '$.at') FROM operation_events INDEXED BY events_${type}
      WHERE operation_id = o.id AND json_extract(data, '$.type') = '${type}') AS ${type}_at`;
  return {
    sql: `SELECT id, model, key_id, type, client_token, '' AS body_sha, expected_step,
            json_object('type', type) AS op, status, from_step, NULL AS work,
            iif(type IN ('forward', 'forward_backward'), json_remove(result, '$.logprobs'), result) AS result, error, deaths,
            abort_requested, created_at, ${time("started")}, ${time("ended")}
          FROM operations o INDEXED BY ${page.type === undefined ? "operations_by_model" : "operations_by_type"}
          WHERE model = ? AND key_id = ? ${typed} AND number < ? ORDER BY number DESC LIMIT ?`,
    args: [
      model,
      keyId,
      ...(page.type === undefined ? [] : [page.type]),
      page.before,
      page.limit + 1,
    ],
  };
}
