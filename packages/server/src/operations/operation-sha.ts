import { canonicalSha256InTurns } from "../store/canonical.ts";
import type { ParsedSubmit } from "./records.ts";

/** What a `clientToken` stands for: the same token with the same hash is the same operation. */
export function operationSha({ expectedStep, op }: ParsedSubmit): Promise<string> {
  return canonicalSha256InTurns({ expectedStep, op: asStoredBefore(op) });
}

/** Earlier versions had one objective and did not name it: a program that is repeated after an upgrade finds its step. */
function asStoredBefore(op: ParsedSubmit["op"]): unknown {
  if (!("config" in op) || op.config.type !== "policy_gradient") return op;
  const { type: _, ...config } = op.config;
  return { ...op, config };
}
