import { realpath } from "node:fs/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Engine } from "../ports/engine.ts";
import type { LiveAdapter, LiveBase } from "../ports/live-set.ts";
import { probeEngine } from "./probe.ts";

/** What one engine holds of this server's. */
export interface Holding {
  /** Loaded by this server, and checked. Others are not trusted, also under our names and paths: an earlier data
   * directory may have stood in the same place. */
  adapters: Set<string>;
  /** What may be in it although nobody wants it: it could not be unloaded. */
  leftovers: Set<string>;
}

export interface PrepareOptions {
  base: () => LiveBase;
  /** What the probe may differ by. @default by the base's type */
  tolerance?: (() => number | undefined) | undefined;
  log: Logger;
}

/**
 * Makes an engine ready to serve an adapter: it loads it, its list agrees, and a probe gives the trainer's logprobs.
 * Where one of these fails, it does not keep the adapter.
 *
 * Its list is asked also where memory says that it serves the policy: it may be another process by now. The list says
 * which weights: one that outlives a server, or that two servers use, serves others under the same name.
 */
export async function prepare(
  engine: Engine,
  holding: Holding,
  adapter: LiveAdapter,
  { base, tolerance, log }: PrepareOptions,
): Promise<void> {
  const { policy, probe } = adapter;
  const took = stopwatch();
  const served = await engine.served();
  took("list");
  const isOurs = await isFrom(served, adapter);
  if (holding.adapters.has(policy) && isOurs) return;
  holding.adapters.delete(policy);
  if (served.has(policy)) {
    if (isOurs) {
      log.info({ policy }, "an earlier server loaded this policy: loading it again");
    } else {
      log.warn(
        { policy, root: served.get(policy) },
        "the engine serves other weights under this name: they give way to this server's. " +
          "Servers that share an engine need model names of their own",
      );
    }
    await engine.unload(policy);
  }
  // From here on it may have it, also where it does not answer.
  holding.leftovers.add(policy);
  try {
    await engine.load(adapter);
    took("load");
    fault("publish.after-load");
    if (!(await isFrom(await engine.served(), adapter))) {
      throw new HoneError(
        `The engine took ${policy} but does not serve it from its checkpoint. ` +
          "Look whether another server loads policies of the same name into this engine.",
        { code: "engine_error" },
      );
    }
    took("listAgain");
    if (probe) {
      const { difference, tellsApart } = await probeEngine(engine, adapter, probe, {
        dtype: base().dtype,
        tolerance: tolerance?.(),
      });
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
  holding.adapters.add(policy);
  took("probe");
  log.debug({ policy, tookMs: took.all }, "the engine is ready for the policy");
}

/** Each call says what has been done since the one before. */
function stopwatch() {
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
