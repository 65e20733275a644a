import type { Store } from "../store/store.ts";

/**
 * How many `forward_backward` a program has submitted since its last `optim_step`. The program's tokens begin with
 * `prefix` and grow as texts; those from `before` on do not count. So a request that is sent again finds the same
 * number, and nothing has to be kept beside the log.
 */
export function callsSinceStep(
  store: Store,
  program: { keyId: string; model: string; prefix: string; before: string },
): number {
  const { keyId, model, prefix, before } = program;
  const last = store.get(
    `SELECT max(client_token) AS token FROM operations WHERE model = ? AND key_id = ?
       AND client_token >= ? AND client_token < ? AND type = 'optim_step'`,
    ...[model, keyId, prefix, before],
  ) as { token: string | null };
  const { calls } = store.get(
    `SELECT count(*) AS calls FROM operations WHERE model = ? AND key_id = ?
       AND client_token > ? AND client_token < ? AND type = 'forward_backward'`,
    ...[model, keyId, last.token ?? prefix, before],
  ) as { calls: number };
  return calls;
}
