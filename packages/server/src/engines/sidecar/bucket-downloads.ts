import { rm } from "node:fs/promises";
import { HoneError } from "@hone/core";
import type { Logger } from "pino";
import { Agent, request as send } from "undici";
import { diskFullError, sha256OfFile } from "../../store/files.ts";
import { storeRule } from "../bucket/bucket-place.ts";
import type { BucketMiss } from "../bucket/bucket-miss.ts";
import type { WantedFiles } from "../joined/wire.ts";
import { receive } from "./adapter-cache.ts";
import type { ServerLink } from "./server-link.ts";
import { watchStall } from "./stall.ts";

/** In all a download has `wholeMs`: the server does not see how far it is, and waits for half a minute. */
const defaults = { answerMs: 3_000, stallMs: 5_000, wholeMs: 15_000, restMs: 60_000 };

/**
 * Weights from the server's bucket, by a URL that the server signs for each. What comes counts only with the digest that
 * the server named. One that this machine does not reach, or that refuses, is left alone for a minute: the server has the
 * weights, too, and a publication waits for them.
 */
export function bucketDownloads(options: {
  link: Pick<ServerLink, "bucketURL">;
  /** The server's URL. */
  server: string;
  signal: AbortSignal;
  log: Logger;
  limits?: typeof defaults;
}): (wanted: WantedFiles, file: string) => Promise<BucketMiss | null> {
  const { link, log } = options;
  const { answerMs, stallMs, wholeMs, restMs } = options.limits ?? defaults;
  const host = new URL(options.server).hostname;
  const rule = storeRule(/^(localhost|127\..*|\[::1\])$/.test(host));
  let resting: { until: number; why: BucketMiss } | null = null;

  async function download(
    url: string | null,
    { sha256, bytes }: WantedFiles,
    file: string,
  ): Promise<void> {
    if (url === null) throw new Miss("missing", "the server says that it is not there any more");
    await rule.require(url);
    const agent = new Agent({ connect: { timeout: answerMs, lookup: rule.lookup } });
    const stall = watchStall(stallMs, "The bucket");
    try {
      const { statusCode, body } = await send(url, {
        ...{ dispatcher: agent, headersTimeout: answerMs },
        signal: AbortSignal.any([options.signal, stall.signal, AbortSignal.timeout(wholeMs)]),
      });
      if (statusCode !== 200) {
        await body.dump({ limit: 65_536, signal: options.signal });
        throw new Miss(statusCode === 404 ? "missing" : "refused", `it answered ${statusCode}`);
      }
      await receive(stall.watched(body), file, bytes);
      if ((await sha256OfFile(file)) === sha256) return;
      throw new Miss("damaged", "what came has another SHA-256");
    } finally {
      stall.end();
      await agent.destroy();
    }
  }

  return async (wanted, file) => {
    if (resting && performance.now() < resting.until) return resting.why;
    // Where the server does not answer, it has no weights to give either.
    const url = await link.bucketURL(wanted.sha256, options.signal);
    try {
      await download(url, wanted, file);
      resting = null;
      return null;
    } catch (error) {
      options.signal.throwIfAborted();
      const full = diskFullError(error);
      if (full) throw full;
      await rm(file, { force: true });
      const why = missOf(error);
      // What is wrong with one object says nothing of the next.
      const rests = why === "unreachable" || why === "refused";
      if (rests) resting = { until: performance.now() + restMs, why };
      const { policy } = wanted;
      log.warn(
        { policy, why, err: (error as Error).message },
        `the adapter comes from the server, not from its bucket (${why})${rests ? `: the bucket is left alone for ${restMs / 1000} s` : ""}`,
      );
      return why;
    }
  };
}

class Miss extends Error {
  readonly why: BucketMiss;
  constructor(why: BucketMiss, message: string) {
    super(message);
    this.why = why;
  }
}

function missOf(error: unknown): BucketMiss {
  if (error instanceof Miss) return error.why;
  if (!HoneError.isInstance(error)) return "unreachable";
  // More bytes than are due; an address that is not allowed.
  if (error.code === "bad_adapter") return "damaged";
  return error.code === "invalid_request" ? "refused" : "unreachable";
}
