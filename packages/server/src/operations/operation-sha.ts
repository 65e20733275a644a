import { canonicalSha256InTurns } from "../store/canonical.ts";
import type { ParsedSubmit } from "./records.ts";

/** What a `clientToken` stands for: the same token with the same hash is the same operation. */
export function operationSha({ expectedStep, op }: ParsedSubmit): Promise<string> {
  return canonicalSha256InTurns({ expectedStep, op: asStoredBefore(op) });
}

/**
 * Earlier versions had one objective, which they did not name, with fewer options: a program that is repeated after
 * an upgrade finds its step. Their constant stands for one that is not given.
 */
function asStoredBefore(op: ParsedSubmit["op"]): unknown {
  if (!("groups" in op) || op.config.type !== "policy_gradient") return op;
  const { type: _, mismatchMask, measureKl, normalizerTokens = 1024, ...config } = op.config;
  const asked = {
    ...(mismatchMask !== "none" && { mismatchMask }),
    ...(measureKl && { measureKl }),
  };
  return { ...op, config: { ...config, normalizerTokens, ...asked } };
}
