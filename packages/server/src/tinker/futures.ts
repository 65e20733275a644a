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

interface Future {
  keyId: string;
  answer: Promise<Answer>;
  work: AbortController;
}

export function createFutures(): Futures {
  const futures = new Map<string, Future>();

  function find(keyId: string, id: string): Future {
    const future = futures.get(id);
    if (future?.keyId === keyId) return future;
    throw new HoneError(
      `There is no request "${id.slice(0, 200)}" any more: the server was restarted, or its answer was fetched long ago. Send it again.`,
      { code: "not_found", status: 410 },
    );
  }

  return {
    begin(keyId, id, run) {
      if (futures.get(id)?.keyId === keyId) return;
      const work = new AbortController();
      const answer = run(work.signal);
      futures.set(id, { keyId, answer, work });
      const forget = (): void => void setTimeout(() => futures.delete(id), keptMs).unref();
      answer.then(forget, forget);
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
