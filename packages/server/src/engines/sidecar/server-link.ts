import { HoneError } from "@hone/core";
import { Transport } from "@hone/transport";
import { z } from "zod";
import {
  bucketURLSchema,
  drainingSchema,
  enginePaths as paths,
  joinedSchema,
  knownSchema,
  liveAnswerSchema,
  longestPollMs,
  servedBaseSchema,
  type Announcement,
  type Joined,
  type LiveAnswer,
  type Report,
  type ServedBaseOnWire,
} from "../joined/wire.ts";
import type { BucketMiss } from "../bucket/bucket-miss.ts";
import { watchStall } from "./stall.ts";

const timeoutMs = 15_000;
/** A download of which nothing comes for so long is over: a connection may be gone without a word. */
const defaultStallMs = 30_000;

/** The server, as an engine's sidecar speaks to it. No request is sent twice: the caller knows when it makes sense. */
export interface ServerLink {
  base(signal: AbortSignal): Promise<ServedBaseOnWire>;
  announce(announcement: Announcement, signal: AbortSignal): Promise<void>;
  live(boot: string, after: number, signal: AbortSignal): Promise<LiveAnswer>;
  /** @param missed why it did not come from the bucket, where the server has one */
  adapter(
    sha256: string,
    signal: AbortSignal,
    missed?: BucketMiss | null,
  ): Promise<AsyncIterable<Uint8Array>>;
  /** Where the server's bucket lets it be read; null where it does not. */
  bucketURL(sha256: string, signal: AbortSignal): Promise<string | null>;
  report(report: Report): Promise<{ known: boolean }>;
  drain(boot: string): Promise<{ inFlight: number }>;
  leave(): Promise<void>;
}

/**
 * Redeems a join token for the key. Where the token is worth nothing any more, the server may have taken it for this very
 * key, and its answer was lost.
 */
export async function join(
  serverURL: string,
  { token, key, name }: { token: string | undefined; key: string; name: string | undefined },
  signal: AbortSignal,
): Promise<Joined> {
  const ask = (by: string): Promise<Joined> =>
    transportTo(serverURL, by).json("POST", paths.join, joinedSchema, {
      body: { key, ...(name !== undefined && { name }) },
      signal,
    });
  if (token === undefined) return await ask(key);
  try {
    return await ask(token);
  } catch (error) {
    if (!HoneError.isInstance(error) || error.code !== "invalid_api_key") throw error;
    return await ask(key).catch((second: unknown) => {
      const isUnknown = HoneError.isInstance(second) && second.code === "invalid_api_key";
      throw isUnknown ? error : second;
    });
  }
}

export function linkTo(
  serverURL: string,
  key: string,
  { stallMs = defaultStallMs }: { stallMs?: number } = {},
): ServerLink {
  const transport = transportTo(serverURL, key);
  return {
    base: (signal) => transport.json("GET", paths.base, servedBaseSchema, { signal }),
    async announce(body, signal) {
      await transport.json("POST", paths.announce, knownSchema, { body, signal });
    },
    live(boot, after, signal) {
      const query = new URLSearchParams({ boot, after: String(after) });
      return transport.json("GET", `${paths.live}?${query.toString()}`, liveAnswerSchema, {
        ...{ signal, timeoutMs: longestPollMs + timeoutMs },
      });
    },
    async adapter(sha256, signal, missed) {
      const stall = watchStall(stallMs, "The server");
      const query = missed ? `?bucket=${missed}` : "";
      try {
        const { body } = await transport.open("GET", `${paths.adapters}/${sha256}${query}`, {
          signal: AbortSignal.any([signal, stall.signal]),
        });
        if (body) return stall.watched(body);
        throw new HoneError("The server sent no adapter.", { code: "invalid_response" });
      } catch (error) {
        stall.end();
        throw stall.signal.aborted ? stall.signal.reason : error;
      }
    },
    async bucketURL(sha256, signal) {
      const path = `${paths.adapters}/${sha256}/bucket`;
      return (await transport.json("GET", path, bucketURLSchema, { signal })).url;
    },
    report: (body) => transport.json("POST", paths.report, knownSchema, { body }),
    drain: (boot) => transport.json("POST", paths.drain, drainingSchema, { body: { boot } }),
    async leave() {
      await transport.json("POST", paths.leave, z.unknown(), { body: {} });
    },
  };
}

function transportTo(serverURL: string, apiKey: string): Transport {
  return new Transport({ serverURL, apiKey, fetch: globalThis.fetch, maxRetries: 0, timeoutMs });
}
