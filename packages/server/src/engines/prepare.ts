import { realpath } from "node:fs/promises";
import { HoneError } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Engine } from "../ports/engine.ts";
import type { LiveAdapter, LiveBase, ProbeAnswer } from "../ports/live-set.ts";
import { askProbe, judgeAnswer, probeEngine } from "./probe.ts";

/** What one engine holds of this server's. */
export interface Holding {
  /** Loaded by this server, and checked, with what the engine answered to the probe. Others are not trusted, also under
   * our names and paths: an earlier data directory may have stood in the same place. */
  adapters: Map<string, ProbeAnswer | null>;
  /** What may be in it although nobody wants it: it could not be unloaded. */
  leftovers: Set<string>;
}

const probesAtATime = 4;

export interface PrepareOptions {
  base: () => LiveBase;
  /** What the probe may differ by. @default by the base's type */
  tolerance?: (() => number | undefined) | undefined;
  log: Logger;
}

/**
 * Makes an engine ready to serve an adapter: it loads it, its list agrees, and a probe gives the trainer's logprobs. Each
 * of these is asked once, by whoever stands next to the engine. Where one of them fails, it does not keep the adapter.
 *
 * Its list is asked also where memory says that it serves the policy: it may be another process by now.
 */
export async function prepare(
  engine: Engine,
  holding: Holding,
  adapter: LiveAdapter,
  { base, tolerance, log }: PrepareOptions,
): Promise<void> {
  const { policy, probe } = adapter;
  if (holding.adapters.has(policy) && (await isFrom(await engine.served(), adapter))) return;
  const took = stopwatch();
  holding.adapters.delete(policy);
  // From here on it may have it, also where it does not answer.
  holding.leftovers.add(policy);
  let answer: ProbeAnswer | null;
  try {
    const seen = await loadAnew(engine, adapter, log);
    took("load");
    fault("publish.after-load");
    ({ answer } = seen ?? { answer: await askEngine(engine, adapter, took) });
    if (probe) {
      const limits = { dtype: base().dtype, tolerance: tolerance?.() };
      const { difference, tellsApart } = judgeAnswer(policy, probe, answer, limits);
      log.debug({ policy, difference, tellsApart }, "the engine answers as the trainer does");
    } else {
      log.warn({ policy }, "this policy has no probe: its logprobs were not compared");
    }
  } catch (error) {
    // One that does not answer would keep the caller waiting. It is asked when it is back.
    const isAway = HoneError.isInstance(error) && error.status === 503;
    if (!isAway) await letGo(engine, holding, policy, log);
    throw error;
  }
  holding.leftovers.delete(policy);
  holding.adapters.set(policy, answer);
  log.debug({ policy, tookMs: took.all }, "the engine is ready for the policy");
}

/**
 * Loads it, also where the engine serves the name already, which engines refuse. Its list is asked only then: one that
 * outlives a server, or that two servers use, may serve other weights under the name.
 */
async function loadAnew(
  engine: Engine,
  adapter: LiveAdapter,
  log: Logger,
): Promise<{ answer: ProbeAnswer | null } | void> {
  const { policy } = adapter;
  try {
    return await engine.load(adapter);
  } catch (error) {
    const isRefused = HoneError.isInstance(error) && error.status === 400;
    const served = isRefused ? await engine.served() : null;
    if (!served?.has(policy)) throw error;
    if (await isFrom(served, adapter)) {
      log.info({ policy }, "an earlier server loaded this policy: loading it again");
    } else {
      log.warn(
        { policy, root: served.get(policy) },
        "the engine serves other weights under this name: they give way to this server's. " +
          "Servers that share an engine need model names of their own",
      );
    }
    await engine.unload(policy);
    return await engine.load(adapter);
  }
}

/** Asks for its list and its answer to the probe at the same time. The list says which weights it serves. */
async function askEngine(
  engine: Engine,
  adapter: LiveAdapter,
  took: Stopwatch,
): Promise<ProbeAnswer | null> {
  const { policy, probe } = adapter;
  const given = new AbortController();
  const answering = probe ? askProbe(engine, policy, probe, given.signal) : Promise.resolve(null);
  answering.catch(() => undefined);
  try {
    const isThere = await isFrom(await engine.served(), adapter);
    took("list");
    if (isThere) {
      const answer = await answering;
      took("probe");
      return answer;
    }
    throw new HoneError(
      `The engine took ${policy} but does not serve it from its checkpoint. ` +
        "Look whether another server loads policies of the same name into this engine.",
      { code: "engine_error" },
    );
  } finally {
    given.abort();
  }
}

/** Forgets which of its policies do not answer their probe any more. Throws where the engine is away. */
export async function forgetWrong(
  engine: Engine,
  { adapters }: Holding,
  find: (policy: string) => LiveAdapter | undefined,
  { base, tolerance, log }: PrepareOptions,
): Promise<void> {
  await pLimit(probesAtATime).map([...adapters.keys()], async (policy) => {
    const probe = find(policy)?.probe;
    try {
      const limits = { dtype: base().dtype, tolerance: tolerance?.() };
      if (probe) await probeEngine(engine, { policy }, probe, limits);
      else adapters.delete(policy);
    } catch (error) {
      if (HoneError.isInstance(error) && error.status === 503) throw error;
      log.warn({ policy, err: error }, "a policy does not answer its probe: loading it again");
      adapters.delete(policy);
    }
  });
}

/** Each call says what has been done since the one before. @unit ms */
type Stopwatch = ((what: string) => void) & { readonly all: Readonly<Record<string, number>> };

function stopwatch(): Stopwatch {
  const all: Record<string, number> = {};
  let from = performance.now();
  const took = (what: string): void => {
    const now = performance.now();
    all[what] = Math.round(now - from);
    from = now;
  };
  return Object.assign(took, { all });
}

/** Unloads what nobody wants. What cannot be unloaded now is a leftover. */
export async function letGo(
  engine: Engine,
  holding: Holding,
  policy: string,
  log: Logger,
): Promise<void> {
  holding.adapters.delete(policy);
  holding.leftovers.add(policy);
  try {
    await engine.unload(policy);
  } catch (error) {
    if (!HoneError.isInstance(error) || error.code !== "policy_not_found") {
      log.warn({ policy, err: error }, "a policy that nobody needs could not be unloaded");
      return;
    }
  }
  holding.leftovers.delete(policy);
}

/** Whether what the engine serves under the name is this adapter. */
export async function isFrom(
  served: ReadonlyMap<string, string>,
  { policy, path, sha256 }: LiveAdapter,
): Promise<boolean> {
  const root = served.get(policy);
  if (root === undefined) return false;
  if (root === path || root === `sha256:${sha256}`) return true;
  const [real, realPath] = await Promise.all(
    [root, path].map((folder) => realpath(folder).catch(() => null)),
  );
  return real !== null && real === realPath;
}
