import type { Engine } from "../ports/engine.ts";

/** One engine process, as whoever watches it describes it. */
export interface Replica {
  /** For logs and for those who report on it. */
  name: string;
  engine: Engine;
  /** Throws why it takes no traffic, while it does not. */
  requireUp: () => unknown;
  /** It lags behind the others and gets no traffic until it was admitted again. */
  onFenced?: (() => void) | undefined;
  /** How many sequences it batches (`--max-num-seqs`), where that is known. One that joins says so when it comes. */
  maxSequences?: (() => number | undefined) | undefined;
}

export interface EngineStatus {
  name: string;
  /** While it is loading, it gets the policies that others get, and no traffic. */
  state: "away" | "loading" | "serving";
  /** Why it is fenced; null while it is not, or is merely gone. */
  reason: string | null;
  /** How often a publication has fenced it. */
  fences: number;
  /** What it was given. */
  policies: string[];
}
