import { randomBytes, randomUUID } from "node:crypto";
import { join as joinPath, resolve } from "node:path";
import { HoneError } from "@hone/core";
import { makeFolder } from "@hone/transport/node";
import { ownAddresses, isUnspecified, urlOf } from "../../http/own-address.ts";
import { lockDataDir } from "../../store/lock.ts";
import type { KeptEngine } from "../kept-engine.ts";
import { createEnginePool, type EnginePool } from "../pool.ts";
import { slotRank } from "../vllm/child.ts";
import type { ServedBaseOnWire } from "../joined/wire.ts";
import { openAdapterCache } from "./adapter-cache.ts";
import { checkAdapter } from "./adapter-check.ts";
import { bucketDownloads } from "./bucket-downloads.ts";
import { drain } from "./drain.ts";
import { enter } from "./enter.ts";
import { follow, patiently } from "./follow.ts";
import { forgetIdentity } from "./identity.ts";
import { startProxy } from "./proxy.ts";
import { lookAtBase } from "./local-base.ts";
import { keepLocal } from "./local-engine.ts";
import { createReconciler } from "./reconciler.ts";
import type { SidecarOptions } from "./sidecar-options.ts";

export interface RunningSidecar {
  name: string;
  /** Where the server reaches it. */
  url: string;
  /** Rejects when it cannot go on: the engine was removed, the server serves another base, or vLLM was given up. */
  failed: Promise<never>;
  /** Tells the server, lets requests end within the limit, then stops everything. Aborting the signal cuts that short. */
  stop(hurry?: AbortSignal): Promise<void>;
}

const replica = "engine";

/** Joins a server with an engine on this machine. Resolves once the server knows it. */
export async function startSidecar(options: SidecarOptions): Promise<RunningSidecar> {
  const dataDir = resolve(options.dataDir);
  makeFolder(dataDir, { what: "data directory", mode: 0o700 });
  const lock = lockDataDir(dataDir);
  const undo: (() => unknown)[] = [() => lock.release()];
  const undoAll = async (): Promise<void> => {
    for (const one of undo.toReversed()) await one();
  };
  try {
    return await start({ ...options, dataDir }, undo, undoAll);
  } catch (error) {
    await undoAll();
    throw error;
  }
}

async function start(
  options: SidecarOptions,
  undo: (() => unknown)[],
  undoAll: () => Promise<void>,
): Promise<RunningSidecar> {
  const { dataDir, log, signal } = options;
  const ending = new AbortController();
  undo.push(() => ending.abort());
  const { identity, link, base } = await enter(options);
  let local = await lookAtBase(options, base);
  const isOwn = "python" in options.engine;
  const wantedRank = options.maxLoraRank ?? (isOwn ? base.rank : null);
  const maxRank = wantedRank !== null && isOwn ? slotRank(wantedRank) : wantedRank;

  const cache = await openAdapterCache({
    folder: joinPath(dataDir, "adapters"),
    maxBytes: options.cacheBytes,
    fetch: (sha256, missed) => link.adapter(sha256, ending.signal, missed),
    fromBucket: bucketDownloads({ link, server: options.server, signal: ending.signal, log }),
    check: (place, wanted) => checkAdapter(place, wanted, { maxRank, baseShapes: local.shapes }),
    log,
  });
  let ready = false;
  let told: () => void = () => undefined;
  const reconciler = createReconciler({
    ...{ pool: () => pool, cache, signal: ending.signal, log },
    base: () => ({ name: base.name, fingerprint: local.fingerprint }),
    onChange: () => told(),
    // One that is being started or admitted is not doubted: its restart is under way.
    onUnavailable: () => kept.onFenced(),
  });
  const setReady = (is: boolean): void => {
    ready = is;
    told();
  };
  let giveUp: (error: HoneError) => void = () => undefined;
  const givenUp = new Promise<never>((_, reject) => void (giveUp = reject));
  givenUp.catch(() => undefined);
  const kept = keepLocal({
    ...{ ...options, replica, served: base, local: () => local, maxRank },
    // Asked of an engine that has started, which the proxy precedes.
    awaited: () => proxy.awaited,
    onGivenUp: giveUp,
    pool: () => ({
      async admit(name) {
        await pool.admit(name);
        setReady(true);
      },
      fence(name) {
        pool.fence(name);
        setReady(false);
      },
      missing: (name) => pool.missing(name),
    }),
  });
  undo.push(() => kept.engine.close());
  undo.push(() => kept.stop());
  // The engine of this machine is a pool of one: it gets what is live again whenever it comes back.
  const pool: EnginePool = createEnginePool({
    replicas: [kept],
    restore: () => reconciler.apply(),
    base: () => base,
    tolerance: () => reconciler.tolerance(),
    verify: ({ policy }) => reconciler.mend(policy),
    log,
  });

  const key = randomBytes(32).toString("base64url");
  const proxy = await startProxy({
    ...options.listen,
    ...{ key, log },
    engine: () => ({ baseURL: kept.requireUp(), key: kept.key() }),
    metrics: () => kept.engine.metrics(),
    rootOf(path) {
      const digest = cache.digestOf(path);
      return digest === null ? path : `sha256:${digest}`;
    },
  });
  undo.push(() => proxy.close());
  const url = options.advertise ?? advertised(options.listen.host, proxy.port);

  // One that runs elsewhere may come yet. A vLLM of its own that does not start would not start the next time either.
  // It takes minutes to, and does not hear of the signal itself: what is undone ends it.
  const started = isOwn
    ? kept.start()
    : patiently(() => kept.start(), signal, log, "the engine does not answer yet");
  await Promise.race([started, abortOf(signal)]);
  const { maxModelLen } = await infoOf(kept, base);
  // Of a hub id vLLM may have fetched the files only now.
  local = await lookAtBase(options, base);
  const { fingerprint } = local;
  const boot = randomUUID();
  const following = follow({
    ...{ link, reconciler, boot, log, signal: ending.signal },
    announcement: {
      ...{ boot, url, key, base: { name: base.name, fingerprint }, maxModelLen, maxRank },
      maxSequences: kept.maxSequences() ?? null,
    },
    isReady: () => ready,
  });
  told = following.report;
  undo.push(async () => {
    ending.abort();
    await following.ended.catch(() => undefined);
  });
  const failed = Promise.race([following.ended, givenUp]);
  failed.catch(() => undefined);
  await Promise.race([following.known, failed, abortOf(signal)]);
  log.info({ engine: identity.name, url }, "the engine has joined");

  return {
    name: identity.name,
    url,
    failed,
    async stop(hurry) {
      await drain({ link, boot, proxy, limitMs: options.drainMs, hurry, log });
      if (options.ephemeral) {
        await link.leave().catch((error: unknown) => {
          // Of one that was removed the server has no key any more.
          if (HoneError.isInstance(error) && error.code === "invalid_api_key") return;
          log.warn({ err: error }, "the server was not told that the engine is gone for good");
        });
        forgetIdentity(dataDir);
      }
      await undoAll();
    },
  };
}

/** What the engine says of itself, which has to be the server's base. */
async function infoOf({ engine }: KeptEngine, { name }: ServedBaseOnWire) {
  const info = await engine.info();
  if (info.base === name) return info;
  throw new HoneError(
    `The engine serves "${info.base}", the server "${name}". Start it with the same base and --served-model-name ${name}.`,
    { code: "base_mismatch", param: "base" },
  );
}

function abortOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = (): void => reject(new HoneError("Stopped.", { code: "aborted" }));
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}

function advertised(host: string, port: number): string {
  if (!isUnspecified(host)) return urlOf(host, port);
  const [own] = ownAddresses();
  if (own !== undefined) return `http://${own}:${port}`;
  throw new HoneError("This machine has no address that others can reach. Give --advertise.", {
    code: "invalid_config",
    param: "advertise",
  });
}
