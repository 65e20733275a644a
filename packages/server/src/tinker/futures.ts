import { HoneError } from "@hone/core";

/** What a future resolves to: JSON, or a protocol buffers message. */
export type Answer = { json: Record<string, unknown> } | { proto: Uint8Array };

/**
 * Work that no operation of the log stands for: samples, models, saves. It is lost with the server; the client then
 * hears 410 and asks again.
 */
interface Futures {
  /** Begins the work, unless a request with this id was sent before. */
  begin(keyId: string, id: string, work: (signal: AbortSignal) => Promise<Answer>): void;
  /** The answer; null where there is none yet when the signal comes. */
  wait(keyId: string, id: string, signal: AbortSignal): Promise<Answer | null>;
  /** Nobody waits for it any more. */
  cancel(keyId: string, id: string): void;
}

/** How long an answer stays after it was found: its client may have lost the connection, and asks again. @unit ms */
const keptMs = 10 * 60_000;
/** How many such answers stay at most, of all keys: the oldest go first. A sample of thousands of tokens is some 100 kB. */
export const mostKept = 2_000;

interface Future {
  keyId: string;
  answer: Promise<Answer>;
  work: AbortController;
}

export function createFutures(): Futures {
  const futures = new Map<string, Future>();
  /** Those that were answered, the oldest first. */
  const answered = new Map<Future, string>();

  function find(keyId: string, id: string): Future {
    const future = futures.get(id);
    if (future?.keyId === keyId) return future;
    throw new HoneError(
      `There is no request "${id.slice(0, 200)}" any more: the server was restarted, or its answer was fetched long ago. Send it again.`,
      { code: "not_found", status: 410 },
    );
  }

  function forget(future: Future): void {
    const id = answered.get(future);
    answered.delete(future);
    // Another key may have taken the name since.
    if (id !== undefined && futures.get(id) === future) futures.delete(id);
  }

  return {
    begin(keyId, id, run) {
      if (futures.get(id)?.keyId === keyId) return;
      const work = new AbortController();
      const future = { keyId, answer: run(work.signal), work };
      futures.set(id, future);
      const keep = (): void => {
        answered.set(future, id);
        setTimeout(() => forget(future), keptMs).unref();
        const [oldest] = answered.keys();
        if (answered.size > mostKept && oldest) forget(oldest);
      };
      future.answer.then(keep, keep);
    },

    async wait(keyId, id, signal) {
      const { answer } = find(keyId, id);
      if (signal.aborted) return null;
      let stop = (): void => undefined;
      const over = new Promise<null>((resolve) => {
        stop = () => resolve(null);
        signal.addEventListener("abort", stop, { once: true });
      });
      try {
        return await Promise.race([answer, over]);
      } finally {
        signal.removeEventListener("abort", stop);
      }
    },

    cancel(keyId, id) {
      find(keyId, id).work.abort();
    },
  };
}
