import { bytesOf, copyOf } from "../../store/blob.ts";
import type { Statement, Store } from "../../store/store.ts";

// The token ids of a step's examples stand beside the operation until it has ended. In the operation, as text, they
// would be written anew with each of its changes, and as text of millions of numbers they would hold the main thread.

export function insertTokens(operationId: string, tokens: Int32Array): Statement {
  return {
    // An evaluation whose end a restart cut off is done again, and finds those of the first time.
    sql: "INSERT OR REPLACE INTO example_tokens (operation_id, tokens) VALUES (?, ?)",
    args: [operationId, bytesOf(tokens)],
    long: true,
  };
}

export function deleteTokens(operationId: string): Statement {
  return {
    sql: "DELETE FROM example_tokens WHERE operation_id = ?",
    args: [operationId],
    long: true,
  };
}

/** Null if there are none: the operation is not prepared yet, or an earlier version has prepared it. */
export function readTokens(store: Store, operationId: string): Int32Array | null {
  const row = store.get("SELECT tokens FROM example_tokens WHERE operation_id = ?", operationId) as
    | { tokens: ArrayBuffer | Uint8Array }
    | undefined;
  return row ? new Int32Array(copyOf(row.tokens)) : null;
}
