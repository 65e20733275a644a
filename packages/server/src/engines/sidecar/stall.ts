import { HoneError } from "@hone/core";

interface Stall {
  /** Aborts once nothing has come for so long. */
  readonly signal: AbortSignal;
  end(): void;
  /** The parts as they come; each of them is a sign of life. */
  watched(parts: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
}

/** @param whose who sends, in words */
export function watchStall(stallMs: number, whose: string): Stall {
  const stalled = new AbortController();
  const late = (): void => {
    const text = `${whose} sent nothing of the adapter for ${stallMs / 1000} s.`;
    stalled.abort(new HoneError(text, { code: "connection_failed" }));
  };
  const timer = setTimeout(late, stallMs);
  return {
    signal: stalled.signal,
    end: () => clearTimeout(timer),
    async *watched(parts) {
      try {
        for await (const part of parts) {
          timer.refresh();
          yield part;
        }
      } finally {
        clearTimeout(timer);
      }
    },
  };
}
