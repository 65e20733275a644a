import { HoneError } from "@hone/core";
import type { Engine } from "../ports/engine.ts";
import type { LiveAdapter, LiveBase, Probe, ProbeAnswer } from "../ports/live-set.ts";
import { isEmptyAnswer } from "./engine-errors.ts";

/**
 * How far an engine's logprobs may be from the trainer's, on average over the prompt and at the token after it; and how
 * far the policy's have to be from the base's for the two to be told apart. An engine that is right and differs by less
 * than half of the latter is never taken for one that serves the base. Such an engine differed by 2e-6 in float32 and by
 * .03 in bfloat16, measured with vLLM on CPUs; a single logit of 16 to 32 is rounded by up to .06 in bfloat16.
 */
const limitsOf: Record<LiveBase["dtype"], { tolerance: number; apart: number }> = {
  float32: { tolerance: 1e-3, apart: 1e-4 },
  bfloat16: { tolerance: 0.2, apart: 0.2 },
};

/** Long enough for a queue; an engine that hangs is noticed by whoever watches it. */
const probeTimeoutMs = 300_000;

export interface ProbeLimits {
  dtype: LiveBase["dtype"];
  tolerance?: number | undefined;
}

/**
 * Samples one token with the adapter and compares what the engine tells with what the trainer computed. Resolves to
 * whether that tells the adapter from none. Throws `bad_adapter` where the logprobs are others, and `engine_error` where
 * the engine answers with no token.
 */
export async function probeEngine(
  engine: Engine,
  { policy }: Pick<LiveAdapter, "policy">,
  probe: Probe,
  limits: ProbeLimits,
): Promise<{ difference: number; tellsApart: boolean }> {
  return judgeAnswer(policy, probe, await askProbe(engine, policy, probe), limits);
}

/** Compares an answer to the probe with the trainer's, as `probeEngine` does. */
export function judgeAnswer(
  policy: string,
  probe: Probe,
  found: ProbeAnswer | null,
  limits: ProbeLimits,
): { difference: number; tellsApart: boolean } {
  if (found?.prompt.length !== probe.ids.length - 1) {
    throw new HoneError(`It did not answer the probe of ${policy}.`, { code: "engine_error" });
  }
  // It may have been computed by another server, in the other type.
  const wide = [limits.dtype, probe.dtype].includes("bfloat16");
  const usual = limitsOf[wide ? "bfloat16" : "float32"];
  const tolerance = limits.tolerance ?? usual.tolerance;
  const apart = Math.max(usual.apart, limits.tolerance ?? 0);
  const difference = distance(found, probe.policy);
  const toBase = distance(found, probe.base);
  const tellsApart = distance(probe.policy, probe.base) > apart;
  const isBase = tellsApart && toBase < difference;
  if (difference <= tolerance && !isBase) return { difference, tellsApart };
  throw new HoneError(
    `Its logprobs for ${policy} are not the trainer's: they differ by ${shown(difference)}, and at most ${shown(tolerance)} is allowed. ` +
      (isBase
        ? "They are nearer to those of the base without the adapter. If the engine does serve it and computes in another way, --probe-tolerance allows more."
        : "It serves other weights or another base, or computes in another way (--probe-tolerance allows more)."),
    { code: "bad_adapter" },
  );
}

/** What the engine answers to the probe. Throws `engine_error` where that is no token, or no number. */
export async function askProbe(
  engine: Engine,
  policy: string,
  { ids }: Pick<Probe, "ids">,
  signal?: AbortSignal,
): Promise<ProbeAnswer> {
  const limit = AbortSignal.timeout(probeTimeoutMs);
  try {
    for await (const chunk of engine.generate({
      ...{ model: policy, prompt: ids, n: 1, maxTokens: 1, temperature: 0, topP: 1, seed: null },
      ...{ stop: [], stopTokenIds: [], promptLogprobs: true, stream: false },
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    })) {
      const { promptLogprobs: prompt, logprobs } = chunk;
      const [next] = logprobs;
      if (next === undefined) break;
      if (prompt?.length === ids.length - 1 && [...prompt, next].every(Number.isFinite)) {
        return { prompt: [...prompt], next };
      }
      throw new HoneError(`It answered the probe of ${policy} with logprobs that are no numbers.`, {
        code: "engine_error",
      });
    }
  } catch (error) {
    if (limit.aborted && !signal?.aborted) {
      throw new HoneError(
        `It did not answer the probe of ${policy} within ${probeTimeoutMs / 1000} s. Look at the engine's log: it may hang, or have too long a queue.`,
        { code: "engine_unavailable", cause: error, retryAfterMs: 1_000 },
      );
    }
    if (!isEmptyAnswer(error)) throw error;
  }
  throw new HoneError(`It answered the probe of ${policy} with no token.`, {
    code: "engine_error",
  });
}

/** @unit ms */
const baseTimeoutMs = 30_000;

/** Throws where none of these samples from the bare base, or each gives logprobs that are no numbers. */
export async function requireBase(
  engines: readonly { engine: Engine }[],
  base: string,
): Promise<void> {
  // Tokens of any vocabulary: what they are does not matter.
  const ask = ({ engine }: { engine: Engine }) =>
    askProbe(engine, base, { ids: [0, 0, 0] }, AbortSignal.timeout(baseTimeoutMs));
  try {
    await Promise.any(engines.map(ask));
  } catch (cause) {
    throw new HoneError(`No engine answers with the bare base "${base}".`, {
      ...{ code: "engine_error", cause },
    });
  }
}

function distance(a: ProbeAnswer, b: ProbeAnswer): number {
  const total = a.prompt.reduce((sum, value, at) => sum + Math.abs(value - (b.prompt[at] ?? 0)), 0);
  return Math.max(total / a.prompt.length, Math.abs(a.next - b.next));
}

function shown(value: number): string {
  return value >= 1e-3 ? String(Number(value.toPrecision(2))) : value.toExponential(1);
}
