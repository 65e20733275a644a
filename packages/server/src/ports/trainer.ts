import { HoneError } from "@hone/core";
import type { Probe } from "./live-set.ts";

/** In how many bits the base's linear layers are held, if not in all of them. */
export type Quantize = "nf4";

/** Forward, backward, step, files (docs/worker-contract.md). */
export interface Trainer {
  /** Writes a fresh adapter (B = 0) into the existing folder `staging`; resolves to the files' names. */
  initAdapter(request: {
    staging: string;
    r: number;
    alpha: number;
    seed: number;
  }): Promise<string[]>;
  /**
   * What an engine has to answer with the adapter in this folder. Throws `bad_adapter` for one that does not fit the
   * base or whose numbers are not finite.
   */
  probe(adapter: string): Promise<Probe>;
  /** How likely the adapter in this folder finds each token but the first of these sequences, at temperature 1. */
  logprobs(adapter: string, sequences: readonly (readonly number[])[]): Promise<number[][]>;
  /**
   * Whether a step can be planned with this objective of the operator's and these options of its; resolves to the
   * hash of its file. Throws `invalid_request` where it cannot.
   */
  checkObjective(objective: {
    name: string;
    options: Record<string, unknown>;
  }): Promise<{ sha256: string }>;
  /**
   * Has the worker do one operation: `stepData` is the body of its route. Events come as the worker reports them; the
   * promise resolves with the result line. Throws `train_failed` (the worker's code in the message),
   * `aborted`, or `worker_unavailable` when the worker died or was not there.
   */
  train(request: {
    operationId: string;
    /** @default "train" */
    route?: WorkerRoute | undefined;
    stepData: Uint8Array;
    onEvent: (event: TrainerEvent) => void;
    /** The worker has taken the operation: if it dies from here on, the operation may be the cause. */
    onAccepted: () => void;
    signal: AbortSignal;
  }): Promise<{
    metrics: Record<string, number | null>;
    files: string[];
    /** Of `forward_backward`: those of each sequence. */
    logprobs?: number[][] | undefined;
  }>;
}

/** What the worker does as an operation. */
export type WorkerRoute = "train" | "forward_backward" | "optim_step";

export type TrainerEvent =
  | { event: "stage"; stage: string; seconds: number }
  | { event: "microbatch"; done: number; total: number; tokens: number }
  | { event: "warning"; message: string }
  /** A micro-batch was too large for the memory. It is trained in parts, each with these leaves of the plan. */
  | { event: "split"; message?: string | undefined; into: number[][] };

/** What the worker said was wrong; the cause of the HoneError that a caller of the port sees. */
export class WorkerFault extends Error {
  override readonly name = "WorkerFault";
  readonly code: string | null;

  constructor(message: string, code: string | null) {
    super(message);
    this.code = code;
  }
}

/** The worker's code in an error that came of one of its answers. */
export function workerCode(error: unknown): string | null {
  const cause = HoneError.isInstance(error) ? error.cause : null;
  return cause instanceof WorkerFault ? cause.code : null;
}
