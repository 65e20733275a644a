import { canonicalSha256InTurns } from "../store/canonical.ts";
import type { ParsedSubmit } from "./records.ts";

/** What a `clientToken` stands for: the same token with the same hash is the same operation. */
export function operationSha({ expectedStep, op }: ParsedSubmit): Promise<string> {
  return canonicalSha256InTurns({ expectedStep, op: asStoredBefore(op) });
}

/** Options that the objective has got since, as they are where nothing is given. */
const later = {
  mismatchMask: "none",
  samplerCorrection: "token_truncate",
  baseline: "mean",
  ...{ topEntropyQuantile: 1, beta: 0, entropyCoef: 0 },
};

/**
 * Earlier versions had one objective, which they did not name, with fewer options: a program that is repeated after
 * an upgrade finds its step. Their constants stand for what is not given.
 */
function asStoredBefore(op: ParsedSubmit["op"]): unknown {
  if (!("groups" in op) || op.config.type !== "policy_gradient") return op;
  const { type: _, measureKl, normalizerTokens = 1024, importanceCap = 2, ...config } = op.config;
  const asked = Object.entries(config).filter(
    ([name, value]) => value !== (later as Record<string, unknown>)[name],
  );
  return {
    ...op,
    config: {
      ...Object.fromEntries(asked),
      ...{ normalizerTokens, importanceCap },
      ...(measureKl && { measureKl }),
    },
  };
}
