import { setTimeout as delay } from "node:timers/promises";
import {
  type BradleyTerryOp,
  type DpoOp,
  HoneError,
  policyName,
  type SftOp,
  type SupervisedResult,
} from "@hone/core";
import pLimit from "p-limit";
import { fault } from "../../faults/fault.ts";
import { checkpointName } from "../../policies/checkpoints.ts";
import type { Model } from "../../policies/models.ts";
import type { Renderer } from "../../ports/renderer.ts";
import { bytesOf } from "../../store/blob.ts";
import {
  dropReason,
  restored,
  stored,
  type StepExample,
  type StoredCompletion,
} from "../../step-data/examples.ts";
import {
  encodeStepData,
  optimizerOf,
  planLeaves,
  type StepCompletion,
  type StepPlan,
  type TrainerConfig,
} from "../../step-data/step-data.ts";
import { restartTimeoutMs } from "../ready.ts";
import { type OperationRecord, updateOp, updateOperation } from "../records.ts";
import { deleteTokens, insertTokens, readTokens } from "./example-tokens.ts";
import { aborted, type OperationKind, type Outcome, type Task, timed } from "./kind.ts";
import { referenceFolder } from "./reference-folder.ts";
import { whileHeld } from "./while-held.ts";
import { requireInContext } from "./train-claims.ts";
import { seedOf, stepOnWorker } from "./worker-step.ts";

type SupervisedOp = SftOp | DpoOp | BradleyTerryOp;

/**
 * What is stored before the worker sees the step, beside the token ids: a redone one trains the same ids in the same
 * micro-batches.
 */
interface Prepared {
  stepPlan: StepPlan;
  completions: StoredCompletion[];
  dropped: SupervisedResult["dropped"];
}

export type SupervisedRecord<O extends SupervisedOp> = OperationRecord<O, Prepared>;

/** What an example is to the loss: a side of it, and its reward there. An example with one side is imitated. */
interface Side {
  reward: number;
  example: StepExample;
}

/** How a kind reads its examples, and what it trains for. */
interface Learning<O extends SupervisedOp> {
  sides: (
    task: Task<SupervisedRecord<O>>,
    renderer: Renderer,
    example: O["examples"][number],
    name: string,
  ) => Promise<Side[]>;
  loss: (config: O["config"]) => TrainerConfig["loss"];
  /** The policy whose logprobs the loss measures against; null for none that is kept in a folder. */
  reference: (config: O["config"]) => number | null;
}

/** The renderer works on one core; a few at once keep it busy. */
const atOnce = 4;
const rendererPauseMs = 1_000;

/** One step on examples that nobody has to have sampled. */
export function supervised<O extends SupervisedOp>(
  learning: Learning<O>,
): OperationKind<SupervisedRecord<O>> {
  return {
    async validate(context, _keyId, _model, op) {
      requireInContext(context, op.config);
      return [];
    },

    reads({ model, op }) {
      const step = learning.reference(op.config);
      return step === null ? [] : [{ model, step }];
    },

    async run(task) {
      const { context, record, emit } = task;
      const model = context.models.require(record.model);
      let tokens = record.work && readTokens(context.store, record.id);
      if (!record.work || !tokens) {
        const made = await timed(emit, "tokenize", () => prepare(learning, task, model));
        record.work = made.work;
        tokens = made.tokens;
        if (record.work.stepPlan.rollouts.length === 0) return endUntrained(task, model, {});
        await context.store.write([insertTokens(record.id, tokens), updateOperation(record)]);
      }
      fault("operation.planned");
      const { stepPlan, completions, dropped } = record.work;
      const ids = new Map(restored(completions, tokens).map((one) => [one.id, one]));
      const number = learning.reference(record.op.config);
      const held = typeof number === "number" ? policyName(record.model, number) : null;
      const made = await whileHeld(context.live, held, () => {
        const reference = referenceFolder(context, record.model, number);
        return stepOnWorker(task, stepPlan.config.step, stepPlan.plan, (folders) =>
          encodeStepData(stepPlan, ids, { ...folders, reference }),
        );
      });
      // Of no use once this is committed, and large.
      record.work = {
        stepPlan: { ...stepPlan, completions: [], plan: [] },
        completions: [],
        dropped,
      };
      if (!record.op.evaluate) {
        const { seed, loss } = stepPlan.config;
        const objective = { type: loss.type ?? record.op.type };
        return { ...made, seed, objective, cursor: record.op.cursor };
      }
      await context.checkpoints.discard(made.staging);
      return endUntrained(task, model, made.metrics);
    },

    /** A run validates again and again on the same examples, and nobody reads those of an earlier time. */
    forget: ({ id, op }) => [
      deleteTokens(id),
      ...(op.evaluate ? [updateOp(id, { ...op, examples: [] })] : []),
    ],

    result(_context, { op, model, work }, step, metrics) {
      return {
        type: op.type,
        trained: true,
        step,
        policy: policyName(model, step),
        checkpoint: checkpointName(model, step),
        ...outcomeOf(op, work),
        metrics,
      };
    },
  };
}

function outcomeOf(
  { examples }: SupervisedOp,
  work: Prepared | null,
): Pick<SupervisedResult, "examples" | "dropped" | "warnings"> {
  const dropped = work?.dropped ?? [];
  return { examples: examples.length - dropped.length, dropped, warnings: [] };
}

async function prepare<O extends SupervisedOp>(
  learning: Learning<O>,
  task: Task<SupervisedRecord<O>>,
  model: Model,
): Promise<{ work: Prepared; tokens: Int32Array }> {
  const { context, record } = task;
  const { op } = record;
  const renderer = context.renderer.withTemplate(model.chatTemplateKwargs);
  const longest = op.config.maxSequenceTokens ?? context.base.maxModelLen;
  await context.store.flush();
  const limit = pLimit(atOnce);
  const failed = new AbortController();
  const signal = AbortSignal.any([task.signal, failed.signal]);
  const read = op.examples.map((example, index) =>
    limit(async () => {
      if (signal.aborted) throw aborted();
      try {
        return await named(index, () =>
          patiently(signal, () => learning.sides(task, renderer, example, `ex${index}`)),
        );
      } catch (error) {
        // The operation ends with it: what the others would say is of no use.
        failed.abort();
        throw error;
      }
    }),
  );
  const dropped: Prepared["dropped"] = [];
  const plan: StepPlan = {
    rollouts: [],
    completions: [],
    plan: [],
    config: configOf(learning, task, model),
  };
  const ids = new Map<string, StepCompletion>();
  for (const [index, sides] of (await Promise.all(read)).entries()) {
    const reason =
      sides.map(({ example }) => dropReason(example, longest)).find((why) => why !== null) ??
      (sameIds(sides) ? "zero_variance" : null);
    if (reason !== null) {
      dropped.push({ index, reason });
      continue;
    }
    for (const { reward, example } of sides) {
      const rollout = plan.rollouts.length;
      plan.rollouts.push({ id: `ex${index}`, reward, group: index, trainable: true });
      for (const completion of example.completions) {
        ids.set(completion.id, completion);
        const trainable = example.trained.has(completion.id);
        plan.completions.push({ id: completion.id, rollout, trainable });
      }
    }
  }
  plan.plan = planLeaves(plan, ids, {
    optimizerSteps: 1,
    maxTokensPerMicroBatch: op.config.maxTokensPerMicroBatch,
    whole: plan.config.loss.type === "sft" ? undefined : "group",
  });
  const { completions, tokens } = stored([...ids.values()]);
  return { work: { stepPlan: plan, completions, dropped }, tokens };
}

function configOf<O extends SupervisedOp>(
  { loss }: Learning<O>,
  { record }: Task<SupervisedRecord<O>>,
  model: Model,
): TrainerConfig {
  const step = model.learnt + 1;
  return {
    operation_id: record.id,
    model: model.name,
    step,
    lora: model.lora,
    packing: "tree",
    optimizer: optimizerOf(record.op.config),
    loss: loss(record.op.config),
    ...(record.op.evaluate && { evaluate: true }),
    // Nothing here was sampled by a policy that the trainer could be compared with.
    max_mismatch: 1,
    seed: seedOf(model, step),
  };
}

/** Whether both sides of a pair are the same ids: then no side is better. */
function sameIds(sides: readonly Side[]): boolean {
  if (sides.length < 2) return false;
  const [one, ...others] = sides.map(({ example }) => stored(example.completions));
  const lengths = ({ completions }: ReturnType<typeof stored>): string =>
    completions.map(({ prompt, answer }) => [prompt, answer]).join();
  return others.every(
    (other) =>
      one !== undefined &&
      lengths(other) === lengths(one) &&
      Buffer.compare(bytesOf(other.tokens), bytesOf(one.tokens)) === 0,
  );
}

/** N stays. The cursor moves with a step whose examples were all left out: they were tried. */
async function endUntrained<O extends SupervisedOp>(
  { context: { models }, record }: Task<SupervisedRecord<O>>,
  { name, learnt, cursor }: Model,
  metrics: SupervisedResult["metrics"],
): Promise<Outcome> {
  const { op } = record;
  record.result = {
    type: op.type,
    trained: false,
    step: learnt,
    policy: policyName(name, learnt),
    checkpoint: null,
    ...outcomeOf(op, record.work),
    metrics,
  };
  record.work = null;
  const keep = op.evaluate || op.cursor === undefined;
  await models.setCursor(name, keep ? cursor : op.cursor, [updateOperation(record)]);
  return "nothing";
}

/** What is wrong with an example is told with its place. */
async function named<T>(index: number, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!HoneError.isInstance(cause) || cause.code === "renderer_unavailable") throw cause;
    throw new HoneError(`Example ${index} (from 0) cannot be trained: ${cause.message}`, {
      code: cause.code,
      param: [`op.examples[${index}]`, ...(cause.param ? [cause.param] : [])].join("."),
      cause,
    });
  }
}

/** A renderer that is being restarted is waited for. */
async function patiently<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (const until = Date.now() + restartTimeoutMs; ;) {
    try {
      return await work();
    } catch (error) {
      const away = HoneError.isInstance(error) && error.code === "renderer_unavailable";
      if (!away || Date.now() > until) throw error;
      await delay(rendererPauseMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) throw aborted();
    }
  }
}
