import { HoneError, kindOf, refuseUnknownOptions } from "@hone/core";
import type { OperationEvent } from "@hone/core";
import { optionalFunction, requireSignal } from "../argument-kinds.ts";
import { checkSchedule } from "../training/schedule.ts";
import type { Schedule } from "../training/schedule.ts";
import type { ExamplesOf } from "./examples-source.ts";

/** What `sft`, `dpo` and `bradleyTerry` tell while they run. */
export type SupervisedEvent =
  | {
      type: "step";
      /** Steps of the run that are done, this one included, and how many it has. */
      step: number;
      steps: number;
      epoch: number;
      /** Mean of the step, before its update; null if every example was left out. */
      loss: number | null;
      learningRate: number;
      policy: string;
      metrics: Record<string, number | null>;
    }
  | ({ type: "validation" } & Validation)
  /** An earlier start of the program did the first `step` steps. */
  | { type: "resumed"; step: number; steps: number };

/** How well a policy does on the examples that are held out. */
export interface Validation {
  /** Steps of the run before it. */
  step: number;
  policy: string;
  /** Of `sft` the cross-entropy of a token in nats, of the others the mean over pairs. */
  loss: number;
  /** exp(loss) of `sft`; null for the others. */
  perplexity: number | null;
  metrics: Record<string, number | null>;
}

/** Options of a supervised run, whatever it learns from. */
export interface RunOptions<Given> {
  /** How often each example is trained. @default 1 */
  epochs?: number | undefined;
  /** Examples of a step. @default 16 */
  batchSize?: number | undefined;
  /** A new order each epoch. @default true */
  shuffle?: boolean | undefined;
  /** Of the order and of the split. @default 0 */
  seed?: number | undefined;
  /** How the learning rate falls over the run. @default { type: "constant" } */
  schedule?: Schedule | undefined;
  /** A set of its own, or the share of the examples that is held out for it. @default none */
  validation?: number | ExamplesOf<Given> | undefined;
  /** Steps from one validation to the next; there is one before the first step and one after the last too. @default one epoch */
  validateEvery?: number | undefined;
  /**
   * Names the run. A program that is started again goes on with the run of the same name. @default a hash of the
   * examples and of what decides their order
   */
  run?: string | undefined;
  onProgress?: ((event: SupervisedEvent) => void) | undefined;
  /** The events of each operation as the server tells them. */
  onEvent?: ((event: OperationEvent) => void) | undefined;
  /** Aborting it ends the step under way on the server too. */
  signal?: AbortSignal | undefined;
}

const ownNames = [
  "epochs",
  "batchSize",
  "shuffle",
  "seed",
  "schedule",
  "validation",
  "validateEvery",
  "run",
  "onProgress",
  "onEvent",
  "signal",
] as const;

/** The run's own options with their defaults, and those of each step, which are checked elsewhere. */
export function checkRunOptions<Given>(
  where: string,
  stepNames: readonly string[],
  options: RunOptions<Given>,
): { own: SettledOptions<Given>; step: object } {
  refuseUnknownOptions(where, options, [...stepNames, ...ownNames]);
  requireSignal(where, options);
  optionalFunction(where, options.onProgress, "onProgress");
  optionalFunction(where, options.onEvent, "onEvent");
  if (options.schedule !== undefined) checkSchedule(where, options.schedule);
  const { epochs = 1, batchSize = 16, seed = 0, shuffle = true } = options;
  for (const [name, value, least] of [
    ["epochs", epochs, 1],
    ["batchSize", batchSize, 1],
    ["seed", seed, 0],
    ["validateEvery", options.validateEvery ?? 1, 1],
  ] as const) {
    if (Number.isSafeInteger(value) && value >= least) continue;
    throw new HoneError(`${where}: ${name} is a whole number of at least ${least}, not ${value}.`, {
      code: "invalid_config",
      param: name,
    });
  }
  if (typeof shuffle !== "boolean") {
    throw new HoneError(`${where}: shuffle is true or false, not ${kindOf(shuffle)}.`, {
      code: "invalid_config",
      param: "shuffle",
    });
  }
  const { validation } = options;
  // A share below 0 would hold all out but so many.
  if (typeof validation === "number" && !(validation > 0 && validation < 1)) {
    throw new HoneError(
      `${where}: as a number, validation is a share above 0 and below 1, not ${validation}. Give a share of the examples, or a set of its own.`,
      { code: "invalid_config", param: "validation" },
    );
  }
  if (options.run !== undefined && (typeof options.run !== "string" || options.run === "")) {
    throw new HoneError(`${where}: run is a name, a text that is not empty.`, {
      code: "invalid_config",
      param: "run",
    });
  }
  if (options.validateEvery !== undefined && options.validation === undefined) {
    throw new HoneError(
      `${where}: validateEvery needs validation. Give a set or a share of the examples.`,
      {
        code: "invalid_config",
        param: "validateEvery",
      },
    );
  }
  const step = Object.fromEntries(
    Object.entries(options).filter(([name]) => !(ownNames as readonly string[]).includes(name)),
  );
  return { own: { ...options, epochs, batchSize, seed, shuffle }, step };
}

export interface SettledOptions<Given> extends RunOptions<Given> {
  epochs: number;
  batchSize: number;
  seed: number;
  shuffle: boolean;
}
