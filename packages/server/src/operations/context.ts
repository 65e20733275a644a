import type { LimitFunction } from "p-limit";
import type { Logger } from "pino";
import type { StoredLedger } from "../ledger/ledger.ts";
import type { Checkpoints } from "../policies/checkpoints.ts";
import type { Gradients } from "../policies/gradients.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Models } from "../policies/models.ts";
import type { Clock } from "../ports/clock.ts";
import type { Engines } from "../ports/engine.ts";
import type { Renderer } from "../ports/renderer.ts";
import type { Quantize, Trainer } from "../ports/trainer.ts";
import type { Retention } from "../retention/retention.ts";
import type { Rollouts } from "../rollouts/rollouts.ts";
import type { Store } from "../store/store.ts";
import type { EventLog } from "./events.ts";
import type { ReadyGate } from "./ready.ts";

/** What the server serves. */
export interface Base {
  name: string;
  maxModelLen: number;
  /** Token ids are below it. */
  vocabSize: number;
  dtype: "float32" | "bfloat16";
  quantize?: Quantize | null | undefined;
  /** What generates sleeps while a step trains. @default false */
  sleeps?: boolean | undefined;
}

/** What operations work with. */
export interface OperationContext {
  store: Store;
  ledger: StoredLedger;
  models: Models;
  checkpoints: Checkpoints;
  gradients: Gradients;
  live: LivePolicies;
  rollouts: Rollouts;
  engines: Engines;
  trainer: Trainer;
  renderer: Pick<Renderer, "withTemplate">;
  /** The worker trains one operation at a time, whatever models they are of. */
  trainTurn: LimitFunction;
  events: EventLog;
  ready: ReadyGate;
  retention: Retention;
  base: Base;
  /** Folders under which `import` may read. */
  importRoots: readonly string[];
  clock: Clock;
  log: Logger;
}
