import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import { adapterConfigName, adapterName, type LiveAdapter } from "../../ports/live-set.ts";
import { brokenStream } from "../engine-errors.ts";
import type { AdapterBucket } from "../bucket/adapter-bucket.ts";
import { createHttpEngine, type HttpEngine } from "../http-engine.ts";
import { addressRule, type AddressRule } from "../addresses.ts";
import type { Announcement, Report, WantedAdapter } from "./wire.ts";

/**
 * The driver of an engine that joined. Traffic goes to its sidecar as to any engine. Adapters do not: a load puts one
 * into the set that the sidecar has to serve and waits until it reports that it does, or why it does not.
 */
export interface JoinedDriver extends HttpEngine {
  readonly generation: number;
  /** Requests that are under way on it. */
  readonly inFlight: number;
  wanted(): WantedAdapter[];
  /** The file of the weights with this digest, if the engine shall have them. */
  fileOf(sha256: string): string | null;
  /** The same, as it is sent to the engine. A load is not late while something of its weights gets there. */
  send(sha256: string): AsyncGenerator<Uint8Array>;
  /** Where the sidecar is from now on: nothing that it said before counts. */
  moved(to: Announcement, rule: AddressRule): void;
  heard(report: Report): void;
  /** What it said last. */
  report(): Report | null;
  /** Wants nothing besides these and what is being loaded: what timed out may be over. */
  keepOnly(policies: ReadonlySet<string>): void;
  /** Its sidecar hears at once that it is known no more. Resolves when nothing streams from it, or the signal aborts. */
  finished(signal: AbortSignal): Promise<void>;
  /** Ends what streams from it: nobody hears of it any more. */
  hangUp(): void;
  /** Resolves at the next change of what is wanted, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void>;
}

interface Waiting {
  policy: string;
  late: NodeJS.Timeout;
  /** Rejects: there will be no report. */
  giveUp: () => void;
}

/** Whether something streams still. */
const lookEveryMs = 50;

export function createJoinedDriver(options: {
  name: string;
  /**
   * How long a load or an unload may take, from when the engine was last sent something of it. Where there are others, the
   * pool does not wait as long. @unit ms @default 30 s
   */
  deadlineMs?: number | undefined;
  bucket?: AdapterBucket | null | undefined;
  clock?: () => number;
}): JoinedDriver {
  const { name, deadlineMs = 30_000, bucket = null } = options;
  let address: Announcement | null = null;
  let rule: AddressRule = addressRule(undefined);
  let last: Report | null = null;
  // The sidecar compares it with what it has from an earlier start of this server.
  let generation = (options.clock ?? Date.now)();
  const wanted = new Map<string, { entry: Omit<WantedAdapter, "inBucket">; file: string }>();
  /** Who waits for a report, and for which policy. */
  const waiting = new Map<(report: Report) => void, Waiting>();
  const watchers = new Set<() => void>();
  let line = new AbortController();
  let inFlight = 0;
  let closed = false;

  function requireAddress(): Announcement {
    if (address) return address;
    throw new HoneError(`The engine ${name} has not said where it is. Ask again in a moment.`, {
      code: "engine_unavailable",
      retryAfterMs: 1000,
    });
  }
  const http = createHttpEngine({
    kind: "vllm",
    baseURL: () => requireAddress().url,
    key: () => requireAddress().key,
    // A vLLM that works on a large batch may answer late. A sidecar that is gone is noticed by its silence.
    controlTimeoutMs: deadlineMs,
    lookup: (...asked) => rule.lookup(...asked),
  });

  function change(): void {
    generation++;
    for (const watcher of [...watchers]) watcher();
  }

  const fileOf = (sha256: string): string | null =>
    [...wanted.values()].find(({ entry }) => entry.sha256 === sha256)?.file ?? null;

  /** Resolves to what `verdict` finds in a report; null waits on. Rejects with the error that it gives. */
  function untilHeard<T extends object>(
    policy: string,
    what: string,
    verdict: (report: Report) => T | HoneError | null,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (result: T | HoneError): void => {
        clearTimeout(late);
        waiting.delete(hear);
        if (HoneError.isInstance(result)) reject(result);
        else resolve(result);
      };
      const late = setTimeout(() => {
        const text = `The engine ${name} did not ${what} ${policy} within ${deadlineMs / 1000} s.`;
        settle(new HoneError(text, { code: "engine_unavailable", retryAfterMs: 1000 }));
      }, deadlineMs);
      const hear = (report: Report): void => {
        const result = verdict(report);
        if (result !== null) settle(result);
      };
      const giveUp = (): void => settle(goneError());
      if (closed) return giveUp();
      waiting.set(hear, { policy, late, giveUp });
      if (last) hear(last);
    });
  }

  const goneError = (): HoneError =>
    new HoneError(`The engine ${name} was removed, or the server is stopping.`, {
      code: "engine_unavailable",
    });

  /** What the report says of this load: that it serves it, or why it does not. What is of an earlier load does not count. */
  function loaded(entry: Omit<WantedAdapter, "inBucket">) {
    return (report: Report): Report["served"][number] | HoneError | null => {
      const { policy, sha256, asked } = entry;
      const there = report.served.find((one) => one.policy === policy && one.asked === asked);
      if (there?.sha256 === sha256) return there;
      const no = report.refused.find((one) => one.policy === policy && one.sha256 === sha256);
      if (!no || report.generation < asked) return null;
      if (no.fault === "engine") {
        const text = `The engine ${name} could not load ${policy}: ${no.reason}`;
        return new HoneError(text, { code: "engine_error" });
      }
      const text = `The engine ${name} refuses ${policy}: ${no.reason}`;
      return new HoneError(text, { code: "bad_adapter" });
    };
  }

  return {
    ...http,
    get generation() {
      return generation;
    },
    get inFlight() {
      return inFlight;
    },
    wanted: () =>
      [...wanted.values()].map(({ entry }) => ({
        ...entry,
        ...(bucket?.holds(entry.sha256) && { inBucket: true as const }),
      })),

    fileOf,

    async *send(sha256) {
      const file = fileOf(sha256);
      if (file === null) return;
      for await (const part of createReadStream(file) as AsyncIterable<Buffer>) {
        yield part;
        for (const { policy, late } of waiting.values()) {
          if (wanted.get(policy)?.entry.sha256 === sha256) late.refresh();
        }
      }
    },

    moved(to, allowed) {
      address = to;
      rule = allowed;
      last = null;
      line.abort();
      line = new AbortController();
    },

    heard(report) {
      last = report;
      for (const hear of [...waiting.keys()]) hear(report);
    },

    report: () => last,

    async *generate(request) {
      const signal = AbortSignal.any([request.signal, line.signal]);
      inFlight++;
      try {
        yield* http.generate({ ...request, signal });
      } catch (error) {
        if (signal.aborted && !request.signal.aborted) throw brokenStream(error);
        throw error;
      } finally {
        inFlight--;
      }
    },

    async load(adapter: LiveAdapter) {
      const { policy, path, sha256, bytes, rank, probe } = adapter;
      const config = await readFile(join(path, adapterConfigName), "utf8");
      // Before the engine hears of it, so that it looks there.
      await bucket?.bring(adapter);
      // The set that this makes: what is of it was loaded after this call.
      const named = { policy, sha256, asked: generation + 1, bytes, rank };
      const entry = { ...named, config, ...(probe && { probe }) };
      wanted.set(policy, { entry, file: join(path, adapterName) });
      change();
      try {
        const { answer } = await untilHeard(policy, "load", loaded(entry));
        return { answer };
      } catch (error) {
        // What only was late may still come, and may be live elsewhere: `keepOnly` tells then.
        if (["bad_adapter", "engine_error"].includes((error as HoneError).code)) {
          wanted.delete(policy);
          change();
        }
        throw error;
      }
    },

    async unload(policy) {
      const isGone = (report: Report): Report | null =>
        report.served.some((one) => one.policy === policy) ? null : report;
      if (wanted.delete(policy)) change();
      await untilHeard(policy, "unload", isGone);
    },

    keepOnly(policies) {
      const loading = new Set([...waiting.values()].map(({ policy }) => policy));
      const over = [...wanted.keys()].filter((one) => !policies.has(one) && !loading.has(one));
      for (const policy of over) wanted.delete(policy);
      if (over.length > 0) change();
    },

    async close() {
      // Its sidecar hears at once that it is known no more.
      change();
      closed = true;
      for (const { giveUp } of [...waiting.values()]) giveUp();
      await http.close();
    },

    async finished(signal) {
      change();
      for (;;) {
        if (inFlight === 0 || signal.aborted) return;
        await delay(lookEveryMs, undefined, { signal }).catch(() => undefined);
      }
    },

    hangUp() {
      line.abort();
      line = new AbortController();
    },

    changed(signal) {
      return new Promise((resolve) => {
        const done = (): void => {
          watchers.delete(done);
          signal.removeEventListener("abort", done);
          resolve();
        };
        if (signal.aborted) return resolve();
        watchers.add(done);
        signal.addEventListener("abort", done, { once: true });
      });
    },
  };
}
