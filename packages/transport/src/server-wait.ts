import { HoneError } from "@hone/core";
import { pause, throwIfAborted, TimeLimitReached, unlessAborted, withinLimit } from "./abort.ts";
import type { ConnectionSettings } from "./connection-settings.ts";
import { textWithoutKey } from "./error-without-key.ts";
import { patientRequest } from "./patient-request.ts";
import { backoffMs } from "./retry.ts";

export interface ServerWaitOptions {
  /** How long the server may be away at a time. @unit ms */
  limitMs: number;
  /** Told when the server is found away, and when it is back. */
  tell: (message: string) => void;
  /** Aborting it ends every wait. */
  signal: AbortSignal;
}

/** Time in which a server that is there says how it is. @unit ms */
const answerLimitMs = 10_000;

/** Why a server is not there. */
interface Absence {
  why: string;
  /** It answers that itself: a part is missing, and to start it again would not help. */
  isStarting: boolean;
}

/** A server that goes away so often, and nothing ends in between, is ended by what it is asked to do. */
const mostFruitless = 3;

/**
 * Waits for a server that is away: it was killed, or is being started again. Whoever meets its absence waits here, and
 * all wait for the same return. A server that answers is waited for only while it says that it is starting.
 */
export class ServerWait {
  readonly #settings: ConnectionSettings;
  readonly #options: ServerWaitOptions;
  #outages = 0;
  #fruitless = 0;
  #waiting: Promise<boolean> | null = null;
  #failure: HoneError | null = null;

  constructor(settings: ConnectionSettings, options: ServerWaitOptions) {
    this.#settings = settings;
    this.#options = options;
  }

  /** How often the server was found away so far. */
  get outages(): number {
    return this.#outages;
  }

  /** Set once it was waited for in vain: then nobody waits again. */
  get failure(): HoneError | null {
    return this.#failure;
  }

  /** Notes that something ended which the server was needed for. */
  progressed(): void {
    this.#fruitless = 0;
  }

  /**
   * Resolves with false where the server is there, and with true once it is back. Throws `connection_failed` where it
   * is not back within the limit, or goes away again and again.
   */
  async untilThere(signal?: AbortSignal): Promise<boolean> {
    if (this.#failure) throw this.#failure;
    this.#waiting ??= this.#wait().finally(() => (this.#waiting = null));
    return await unlessAborted(this.#waiting, signal);
  }

  async #wait(): Promise<boolean> {
    const { limitMs, tell, signal } = this.#options;
    const { serverURL } = this.#settings;
    const from = performance.now();
    let absence = await this.#absence();
    if (absence === null) return false;
    this.#outages += 1;
    this.#fruitless += 1;
    if (this.#fruitless > mostFruitless) {
      throw this.#fail(
        `The server at ${serverURL} went away ${this.#fruitless} times, and no rollout and no operation ended in between (${absence.why}). See in its log what ends it.`,
      );
    }
    const what = absence.isStarting ? "is starting" : `does not answer (${absence.why})`;
    tell(`The server at ${serverURL} ${what}. Waiting for it, up to ${inWords(limitMs)}.`);
    for (let tries = 0; absence !== null; tries += 1) {
      const left = limitMs - (performance.now() - from);
      if (left <= 0) {
        throw this.#fail(inVain(serverURL, inWords(limitMs), absence));
      }
      await pause(Math.min(backoffMs(tries), left), signal);
      absence = await this.#absence();
    }
    const seconds = Math.round((performance.now() - from) / 1000);
    tell(`The server at ${serverURL} is back after ${seconds} s.`);
    return true;
  }

  #fail(message: string): HoneError {
    this.#failure = new HoneError(message, { code: "connection_failed" });
    return this.#failure;
  }

  /** Null where it is there. */
  async #absence(): Promise<Absence | null> {
    const { serverURL, apiKey, fetch } = this.#settings;
    const { signal } = this.#options;
    const ask = async (within: AbortSignal) => {
      const response = await fetch(
        `${serverURL}/health`,
        patientRequest<RequestInit>({
          headers: { authorization: `Bearer ${apiKey}`, accept: "application/json" },
          redirect: "error",
          signal: within,
        }),
      );
      return { status: response.status, text: await response.text() };
    };
    try {
      const { status, text } = await withinLimit(answerLimitMs, signal, ask);
      // A key that is not taken, a route that it lacks: what is asked next says so.
      if (status < 500) return null;
      // The server itself answers with 200 or 503 there.
      const health = status === 503 ? healthOf(text) : null;
      if (health === "starting") return { why: "it is starting", isStarting: true };
      return health === null ? { why: `HTTP status ${status}`, isStarting: false } : null;
    } catch (error) {
      throwIfAborted(signal);
      if (error instanceof TimeLimitReached) {
        return { why: `no answer within ${answerLimitMs / 1000} s`, isStarting: false };
      }
      const { cause, message } = error as { cause?: unknown; message?: string };
      const said = cause instanceof Error && cause.message ? cause.message : String(message);
      return { why: textWithoutKey(said, apiKey), isStarting: false };
    }
  }
}

function inVain(serverURL: string, time: string, { why, isStarting }: Absence): string {
  const goOn = "then go on with the run: nothing that has ended is lost.";
  return isStarting
    ? `The server at ${serverURL} is still starting after ${time}. GET /health says which part is missing; with \`--engine joined\`, let an engine join. When it is there, ${goOn}`
    : `The server at ${serverURL} did not answer for ${time} (${why}). Start it again on its data directory, and ${goOn}`;
}

/**
 * Its word for how it is. Null where somebody else answers in the server's place, as a proxy does: that one names no
 * base. No more is read: a server of another version may say more, and is there all the same.
 */
function healthOf(text: string): string | null {
  try {
    const { status, base } = JSON.parse(text) as { status?: unknown; base?: unknown };
    return typeof status === "string" && typeof base === "string" ? status : null;
  } catch {
    return null;
  }
}

function inWords(ms: number): string {
  const isWhole = ms >= 120_000 && ms % 60_000 === 0;
  return isWhole ? `${ms / 60_000} minutes` : `${Math.round(ms / 1000)} s`;
}
