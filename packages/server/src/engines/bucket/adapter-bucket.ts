import { randomUUID, createHash } from "node:crypto";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { adapterName, type LiveAdapter } from "../../ports/live-set.ts";
import type { LiveSetView } from "../live-set.ts";
import type { BucketMiss } from "./bucket-miss.ts";
import { requireStore, type BucketPlace } from "./bucket-place.ts";
import { openBucketRecord } from "./bucket-record.ts";
import { createS3, S3Refusal, storeTrouble } from "./s3.ts";

/** Weights of adapters by their SHA-256, in a bucket from which engines that joined can fetch them. It holds what is live. */
export interface AdapterBucket {
  /** Throws what is wrong with the bucket, where the operator has to change something; a store that is away only warns. */
  check(): Promise<void>;
  /**
   * Resolves once the bucket has the weights, or once nobody should wait for it any longer: it then warns, and engines
   * get them from the server. Never rejects.
   */
  bring(adapter: Pick<LiveAdapter, "policy" | "path" | "sha256" | "bytes">): Promise<void>;
  holds(sha256: string): boolean;
  /** Where an engine can read the weights, for two minutes; null where the bucket does not have them. */
  urlOf(sha256: string): Promise<string | null>;
  /** An engine could not get them there. */
  missed(sha256: string, engine: string, why: BucketMiss): void;
  status(): BucketStatus;
  close(): Promise<void>;
}

export type BucketStatus = {
  /** As it may be shown. */
  place: string;
  /** Where it is. */
  origin: string;
  state: "ready" | "unreachable";
  /** Why it is of no use now. */
  reason?: string;
  /** What this server has there. */
  objects: number;
  uploads: number;
  failures: number;
  /** How often engines took weights from the server, because the bucket did not give them. */
  fallbacks: number;
};

const urlSeconds = 120;
/** No upload goes on for longer. @unit ms */
const longestUpload = 120_000;
const defaultDeadlineMs = 10_000;
/** A rollout that moves, or an engine that comes, may want it again soon after it was let go. */
const defaultKeptMs = 600_000;
const warnEveryMs = 60_000;

const advice: Readonly<Record<BucketMiss, string>> = {
  missing:
    "Something else removes objects there, such as a rule of the bucket's. It is put there again",
  damaged: "Something else writes to the bucket. It is put there again",
  refused: "Look whether a policy of the bucket, or a proxy, forbids signed URLs",
  unreachable: "Look whether that machine reaches the bucket's endpoint",
};

export function openAdapterBucket(options: {
  place: BucketPlace;
  dataDir: string;
  liveSet: () => LiveSetView;
  /** Of it a publication waits half for an upload; the rest is for the engines. @default 10 s */
  publishDeadlineMs?: number | undefined;
  /** How long what is not live stays. @unit ms @default 10 minutes */
  keptMs?: number | undefined;
  log: Logger;
}): AdapterBucket {
  const { place, log, publishDeadlineMs = defaultDeadlineMs, keptMs = defaultKeptMs } = options;
  const deadlineMs = publishDeadlineMs / 2;
  const { shown } = place;
  const store = createS3(place);
  const record = openBucketRecord(options.dataDir, `${place.url}/${place.prefix}`);
  const ending = new AbortController();
  /** What is known to be there. */
  const held = new Set<string>();
  /** Known from uploads of this process, so that they can be sent again. */
  const files = new Map<string, { file: string; bytes: number; policy: string }>();
  /** What is on its way, there or from there: one change of an object at a time. */
  const under = new Map<string, Promise<unknown>>();
  /** Where an engine found something else than it should: its presence says nothing. */
  const doubted = new Set<string>();
  const retiring = new Map<string, NodeJS.Timeout>();
  const warned = new Map<string, number>();
  let trouble: string | null = null;
  let [uploads, failures, fallbacks] = [0, 0, 0];
  let stopWatching: () => void = () => undefined;

  const nameOf = (sha256: string): string => `adapters/${sha256}.safetensors`;
  const within = (ms: number): AbortSignal =>
    AbortSignal.any([ending.signal, AbortSignal.timeout(ms)]);

  function inTurn<T>(sha256: string, work: () => Promise<T>): Promise<T> {
    const turn = (under.get(sha256) ?? Promise.resolve()).then(work, work);
    under.set(sha256, turn);
    const done = (): void => void (under.get(sha256) === turn && under.delete(sha256));
    turn.then(done, done);
    return turn;
  }

  function fail(policy: string | null, error: unknown): void {
    const why = storeTrouble(error);
    failures++;
    if (trouble === why || ending.signal.aborted) return;
    trouble = why;
    log.warn(
      { bucket: shown, policy },
      `the bucket ${shown} is of no use now: ${why} Engines get adapters from this server until it is back; nothing waits for it`,
    );
  }

  function works(): void {
    if (trouble !== null) log.warn({ bucket: shown }, `the bucket ${shown} is back`);
    trouble = null;
  }

  async function upload(sha256: string): Promise<void> {
    const what = files.get(sha256);
    if (held.has(sha256) || !what) return;
    const began = performance.now();
    try {
      // First: what is there and in no list would never be removed.
      await record.add(sha256);
      const size = doubted.has(sha256)
        ? null
        : await store.size(nameOf(sha256), within(deadlineMs));
      if (size !== what.bytes) {
        const body = { content: what.file, bytes: what.bytes, sha256 };
        await store.put(nameOf(sha256), body, within(longestUpload));
        uploads++;
      }
      doubted.delete(sha256);
      held.add(sha256);
      const tookMs = Math.round(performance.now() - began);
      log.debug({ policy: what.policy, tookMs }, "the bucket has the adapter");
      works();
    } catch (error) {
      fail(what.policy, error);
    } finally {
      retireLater(sha256);
    }
  }

  function isLive(sha256: string): boolean {
    const { adapters } = options.liveSet().current();
    return adapters.some((one) => one.sha256 === sha256);
  }

  /** Whether it is live is looked up then: it may have become so again. */
  function retireLater(sha256: string): void {
    if (retiring.has(sha256) || ending.signal.aborted) return;
    const timer = setTimeout(() => {
      retiring.delete(sha256);
      if (!isLive(sha256)) void inTurn(sha256, () => retire(sha256));
    }, keptMs);
    timer.unref();
    retiring.set(sha256, timer);
  }

  async function retire(sha256: string): Promise<void> {
    if (isLive(sha256)) return;
    held.delete(sha256);
    try {
      await store.remove(nameOf(sha256), within(longestUpload));
      await record.remove(sha256);
      files.delete(sha256);
      log.debug({ sha256 }, "an adapter that is not live was removed from the bucket");
    } catch (error) {
      fail(null, error);
      retireLater(sha256);
    }
  }

  function retireWhatIsNotLive(): void {
    for (const sha256 of record.digests()) if (!isLive(sha256)) retireLater(sha256);
  }

  return {
    async check() {
      stopWatching = options.liveSet().onChange(retireWhatIsNotLive);
      retireWhatIsNotLive();
      for (const { place: other, objects } of record.elsewhere()) {
        log.warn(
          `${objects} adapters of this server are in ${other} still. They stay there, unless a server with this data directory is started with that bucket again`,
        );
      }
      await requireStore(place);
      const content = Buffer.from(`Hone looks whether it may write here, ${randomUUID()}.\n`);
      const sha256 = createHash("sha256").update(content).digest("hex");
      const name = `check-${randomUUID()}`;
      try {
        await store.put(name, { content, bytes: content.length, sha256 }, within(deadlineMs));
        const answer = await fetch(await store.readableURL(name, urlSeconds), {
          ...{ redirect: "manual", signal: within(deadlineMs) },
        });
        await answer.arrayBuffer();
        if (!answer.ok) throw new S3Refusal(answer.status, null);
        await store.remove(name, within(deadlineMs));
      } catch (error) {
        if (error instanceof S3Refusal && error.status < 500) {
          throw new HoneError(`The bucket ${shown} cannot be used: ${storeTrouble(error)}`, {
            ...{ code: "invalid_config", param: "bucket", cause: error },
          });
        }
        fail(null, error);
      }
    },

    async bring({ policy, path, sha256, bytes }) {
      if (held.has(sha256)) return;
      files.set(sha256, { file: join(path, adapterName), bytes, policy });
      const isUp = trouble === null;
      const arriving = inTurn(sha256, () => upload(sha256));
      // While it is away it is tried, and not waited for.
      if (!isUp) return;
      const over = new AbortController();
      const late = await Promise.race([
        arriving.then(() => false),
        delay(deadlineMs, true, { signal: over.signal, ref: false }).catch(() => false),
      ]);
      over.abort();
      if (late) {
        const text = `An upload took more than ${deadlineMs / 1000} s. Look at the way there; a larger --publish-deadline gives it more time.`;
        fail(policy, new HoneError(text, { code: "timeout" }));
      }
    },

    holds: (sha256) => held.has(sha256),

    async urlOf(sha256) {
      return held.has(sha256) ? await store.readableURL(nameOf(sha256), urlSeconds) : null;
    },

    missed(sha256, engine, why) {
      fallbacks++;
      const key = `${engine} ${why}`;
      if (performance.now() - (warned.get(key) ?? -Infinity) > warnEveryMs) {
        warned.set(key, performance.now());
        log.warn(
          { engine, sha256, why },
          `the engine ${engine} did not get an adapter from the bucket ${shown} (${why}), and takes it from this server. ${advice[why]}`,
        );
      }
      if (why !== "missing" && why !== "damaged") return;
      held.delete(sha256);
      doubted.add(sha256);
      void inTurn(sha256, () => upload(sha256));
    },

    status: () => ({
      place: shown,
      origin: new URL(place.url).origin,
      state: trouble === null ? "ready" : "unreachable",
      ...(trouble !== null && { reason: trouble }),
      ...{ objects: held.size, uploads, failures, fallbacks },
    }),

    async close() {
      ending.abort();
      stopWatching();
      for (const timer of retiring.values()) clearTimeout(timer);
      await Promise.allSettled(under.values());
      await store.close();
    },
  };
}
