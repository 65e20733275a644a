import {
  type bradleyTerryObjectiveSchema,
  type CustomObjective,
  customObjectiveSchema,
  type dpoObjectiveSchema,
  HoneError,
  looksAtWholeRollouts,
  objectiveSchema,
  optimizerSchema,
  type ResolvedTrainConfig,
  type sftObjectiveSchema,
} from "@hone/core";
import type { z } from "zod";
import type { LedgerCompletion } from "../ports/ledger.ts";
import { type SelectedCompletion, type SelectedRollout, stepOf } from "./filter.ts";
import { type Leaf, type Plan, planMicroBatches, type PlanOptions } from "./plan.ts";
import { encodeSafetensors, type Tensor } from "./safetensors.ts";

/**
 * All that decides the bits of a step besides the ledger and policy N. It is stored with the operation before
 * the worker sees it: a redone step reads it instead of deciding again.
 */
export interface StepPlan {
  rollouts: SelectedRollout[];
  completions: SelectedCompletion[];
  plan: Plan;
  config: TrainerConfig;
}

/** A completion as a step trains it: the ledger's, or an example that was tokenised. */
export interface StepCompletion extends Pick<
  LedgerCompletion,
  | "id"
  | "parentId"
  | "promptSuffix"
  | "sampled"
  | "logprobs"
  | "temperature"
  | "topP"
  | "constrained"
  | "finishReason"
> {
  /** Null where no policy of ours sampled it: then its logprobs mean nothing, and nothing is made of them. */
  policy: string | null;
}

/** The worker's configuration but for the folders, whose names differ from boot to boot. */
export interface TrainerConfig {
  operation_id: string;
  model: string;
  step: number;
  lora: { r: number; alpha: number };
  optimizer: z.output<typeof optimizerSchema> & { eps: number };
  loss:
    | z.output<typeof objectiveSchema | typeof sftObjectiveSchema | typeof dpoObjectiveSchema>
    | z.output<typeof bradleyTerryObjectiveSchema>
    | PlannedObjective;
  /** The step is computed, and nothing is trained or written. */
  evaluate?: true | undefined;
  /** Plans that were stored before the worker packed have none, and are of a row for each leaf. */
  packing?: "tree" | undefined;
  /** Plans that were stored before there was a choice have none, and the trainer computes old logprobs. */
  old_logprobs?: "auto" | undefined;
  max_mismatch: number;
  seed: number;
}

/** One of the operator's, with the hash of the file that it is of: a step is not redone by other code. */
interface PlannedObjective extends CustomObjective {
  sha256: string;
}

export function trainerConfig(
  given: Pick<TrainerConfig, "operation_id" | "model" | "step" | "lora" | "max_mismatch" | "seed">,
  config: ResolvedTrainConfig,
  /** The hash of the file of a `custom` objective. */
  sha256?: string,
): TrainerConfig {
  return {
    ...given,
    packing: "tree",
    ...(config.oldLogprobs !== "trainer" && { old_logprobs: "auto" as const }),
    optimizer: optimizerOf(config),
    loss:
      config.type === "custom"
        ? { ...customObjectiveSchema.parse(config), sha256: sha256 ?? "" }
        : objectiveSchema.parse(acting(config)),
  };
}

/** A cap of a correction that there is not: earlier versions took it, and their operations are in the log. */
function acting(config: ResolvedTrainConfig): ResolvedTrainConfig {
  if (config.type !== "policy_gradient" || config.samplerCorrection !== "none") return config;
  const { importanceCap: _, ...others } = config;
  return others;
}

/** AdamW's part of a step's options, with what the server adds. */
export function optimizerOf(config: z.output<typeof optimizerSchema>): TrainerConfig["optimizer"] {
  // In float32 it is below the gradient of any step: its length is the rate's, however short the answers and small the
  // rewards. In 8 bits a second moment may be rounded to 0 beside a first one that is not.
  const { eps = config.optimizer === "adamw_8bit" ? 1e-8 : 1e-16 } = config;
  return { ...optimizerSchema.parse(config), eps };
}

type Chosen = Pick<StepPlan, "rollouts" | "completions">;
type Completions = ReadonlyMap<string, StepCompletion>;

/** The leaves of a selection, planned. */
export function planSelection(
  selection: Chosen,
  ledger: Completions,
  options: ResolvedTrainConfig,
): Plan {
  const whole = looksAtWholeRollouts(options) ? ("rollout" as const) : undefined;
  return planLeaves(selection, ledger, { ...options, whole });
}

/** The same where the objective's options are not those of `train`. */
export function planLeaves(selection: Chosen, ledger: Completions, options: PlanOptions): Plan {
  const chosen = selection.completions.map(({ id }) => entry(ledger, id));
  const parents = new Set(chosen.map(({ parentId }) => parentId));
  const leaves: Leaf[] = [];
  selection.completions.forEach(({ id, rollout }, index) => {
    if (parents.has(id)) return;
    const group = selection.rollouts[rollout]?.group ?? 0;
    const path: Int32Array[] = [];
    for (let at: string | null = id; at !== null;) {
      const { parentId, promptSuffix, sampled } = entry(ledger, at);
      path.push(sampled, promptSuffix);
      at = parentId;
    }
    leaves.push({ index, rollout, group, path: path.reverse() });
  });
  return planMicroBatches(leaves, options);
}

/** The body of `POST /train` (docs/worker-contract.md). */
export function encodeStepData(
  stepPlan: StepPlan,
  ledger: ReadonlyMap<string, StepCompletion>,
  folders: { staging: string; checkpoint: string; reference?: string | undefined },
  /** Logprobs of the sampled tokens under what the objective measures against, by completion. @default the worker's */
  reference?: ReadonlyMap<string, readonly number[]>,
): Uint8Array {
  const completions = stepPlan.completions.map(({ id }) => entry(ledger, id));
  const indexOf = new Map(completions.map(({ id }, index) => [id, index]));
  const total = completions.reduce((n, c) => n + c.promptSuffix.length + c.sampled.length, 0);
  const tokens = new Int32Array(total);
  const sampled = new Uint8Array(total);
  const logprobs = new Float32Array(total);
  const offsets = new BigInt64Array(completions.length + 1);
  const references = reference && new Float32Array(total).fill(NaN);
  let at = 0;
  completions.forEach((completion, index) => {
    tokens.set(completion.promptSuffix, at);
    at += completion.promptSuffix.length;
    tokens.set(completion.sampled, at);
    sampled.fill(1, at, at + completion.sampled.length);
    logprobs.set(completion.logprobs, at);
    references?.set(reference?.get(completion.id) ?? [], at);
    at += completion.sampled.length;
    offsets[index + 1] = BigInt(at);
  });
  const parent = completions.map(({ parentId }) => {
    if (parentId === null) return -1;
    const index = indexOf.get(parentId);
    // A missing parent would make a sequence begin in the middle.
    if (index === undefined) throw missing(parentId);
    return index;
  });
  return encodeSafetensors(
    {
      tokens: { type: "I32", data: tokens },
      sampled: { type: "U8", data: sampled },
      logprobs: { type: "F32", data: logprobs },
      completion_offsets: { type: "I64", data: offsets },
      completion_parent: { type: "I32", data: Int32Array.from(parent) },
      completion_rollout: {
        type: "I32",
        data: Int32Array.from(stepPlan.completions, ({ rollout }) => rollout),
      },
      completion_temperature: {
        type: "F32",
        data: Float32Array.from(completions, ({ temperature }) => temperature),
      },
      completion_policy: {
        type: "I32",
        data: Int32Array.from(completions, ({ policy }) => (policy === null ? -1 : stepOf(policy))),
      },
      completion_trainable: {
        type: "U8",
        data: Uint8Array.from(stepPlan.completions, ({ trainable }) => Number(trainable)),
      },
      completion_truncated: {
        type: "U8",
        data: Uint8Array.from(completions, ({ topP, constrained }) =>
          Number(topP < 1 || constrained),
        ),
      },
      completion_cut: {
        type: "U8",
        data: Uint8Array.from(completions, ({ finishReason }) => Number(finishReason === "length")),
      },
      ...givenOf(stepPlan.completions),
      ...(references && { reference: { type: "F32" as const, data: references } }),
      rollout_reward: {
        type: "F64",
        data: Float64Array.from(stepPlan.rollouts, ({ reward }) => reward ?? NaN),
      },
      rollout_group: {
        type: "I32",
        data: Int32Array.from(stepPlan.rollouts, ({ group }) => group),
      },
      rollout_trainable: {
        type: "U8",
        data: Uint8Array.from(stepPlan.rollouts, ({ trainable }) => Number(trainable)),
      },
    },
    { config: JSON.stringify({ ...stepPlan.config, ...folders, plan: stepPlan.plan }) },
  );
}

/** What the client said of single completions. Without it the tensors are left out. */
function givenOf(completions: readonly SelectedCompletion[]): Record<string, Tensor> {
  const tensors: Record<string, Tensor> = {};
  if (completions.some(({ weight }) => weight !== undefined)) {
    const data = Float32Array.from(completions, ({ weight }) => weight ?? 1);
    tensors["completion_weight"] = { type: "F32", data };
  }
  for (const key of ["reward", "advantage"] as const) {
    if (completions.every((one) => one[key] === undefined)) continue;
    const data = Float64Array.from(completions, (one) => one[key] ?? Number.NaN);
    tensors[`completion_${key}`] = { type: "F64", data };
  }
  return tensors;
}

function entry(ledger: ReadonlyMap<string, StepCompletion>, id: string): StepCompletion {
  const completion = ledger.get(id);
  if (completion) return completion;
  throw missing(id);
}

function missing(id: string): HoneError {
  return new HoneError(
    `The ledger has no completion ${id}, which this operation was to train. Submit the rollouts again.`,
    { code: "train_failed" },
  );
}
