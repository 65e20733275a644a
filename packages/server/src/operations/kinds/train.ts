import { HoneError, policyName, type TrainOp, type TrainResult } from "@hone/core";
import {
  encodeStepData,
  planSelection,
  type StepPlan,
  type TrainerConfig,
  trainerConfig,
} from "../../step-data/step-data.ts";
import {
  type FilterGroup,
  type SelectedRollout,
  type Selection,
  selectForTraining,
} from "../../step-data/filter.ts";
import { idleWarning } from "../../step-data/idle-options.ts";
import { rewardMetrics } from "../../step-data/reward-metrics.ts";
import { fault } from "../../faults/fault.ts";
import { checkpointName } from "../../policies/checkpoints.ts";
import type { Model } from "../../policies/models.ts";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import { workerCode } from "../../ports/trainer.ts";
import { createPauses } from "../../store/pauses.ts";
import { differenceMetric, differenceOfEarlier, requireNear } from "./earlier-policy.ts";
import { onceThere } from "./once-there.ts";
import { type OperationRecord, updateOperation } from "../records.ts";
import { seedOf, stepOnWorker } from "./worker-step.ts";
import { type OperationKind, type Outcome, type Staged, type Task, timed } from "./kind.ts";
import { referenceFolder } from "./reference-folder.ts";
import { givenLogprobs, readFeedback, type Taught } from "./taught.ts";
import { findTeacher, namedTeacher, type Teacher, teacherFolder } from "./teacher.ts";
import { claimRewarded, namedCompletions, referenceOf } from "./train-claims.ts";
import { whileHeld } from "./while-held.ts";

type TrainOutcome = Pick<TrainResult, "groups" | "reasons" | "warnings">;
/** What is stored before the worker sees the step, so that one that is redone is the same. */
type TrainRecord = OperationRecord<
  TrainOp,
  {
    work: StepPlan;
    outcome: TrainOutcome;
    teacher?: Teacher | undefined;
    /** What the teacher said, where it is not the worker that asks it. */
    taught?: Taught | undefined;
  }
>;
type TrainTask = Task<TrainRecord>;
type Completions = ReadonlyMap<string, LedgerCompletion>;

/** One step on rollouts and their rewards. */
export const train: OperationKind<TrainRecord> = {
  validate: claimRewarded,

  /**
   * The rewarded members of the groups that trained, those that were only in the baseline included. Members of
   * groups that compared nothing are free for another operation; so is what a distillation has left out, as where it
   * had no teacher: without rewards there is no baseline that it stood in.
   */
  used({ work: stored, op: { config } }) {
    const isCompared = config.type !== "distill" || config.rewardCoef > 0;
    return (stored?.work.rollouts ?? [])
      .filter(({ group }) => stored?.outcome.groups[group]?.reason === null)
      .filter(({ trainable }) => trainable || isCompared)
      .map(({ id }) => id);
  },

  reads({ model, op: { config }, work: stored }) {
    const reference = referenceOf(config);
    const teacher = stored?.teacher ?? namedTeacher(model, config);
    return [
      ...(typeof reference === "number" ? [{ model, step: reference }] : []),
      ...(teacher ? [teacher] : []),
    ];
  },

  async run(task) {
    const { record, emit } = task;
    const completions = await timed(emit, "resolve", () => readCompletions(task));
    fault("operation.resolved");
    if (!record.work) {
      const model = task.context.models.require(record.model);
      const { selection, ...teaching } = await selectTaught(task, model, completions);
      emit({
        type: "filtered",
        reasons: selection.reasons,
        trainableRollouts: selection.trainableRollouts,
        tokens: selection.tokens,
      });
      if (selection.trainableRollouts === 0) {
        return endUntrained(task, selection, selection.rollouts);
      }
      await timed(emit, "plan", () => decidePlan(task, model, selection, teaching, completions));
    }
    const stored = record.work;
    if (!stored) throw new HoneError("The operation has no plan.", { code: "internal_error" });
    const { work: stepPlan, outcome, teacher } = stored;
    const taught = stored.taught && new Map(Object.entries(stored.taught));
    for (const message of outcome.warnings) emit({ type: "warning", message });
    const earlier = await differenceOfEarlier(task, stepPlan, completions);
    requireNear(earlier, stepPlan.config.max_mismatch);
    const reference = referenceOf(record.op.config);
    const held = teacher
      ? policyName(teacher.model, teacher.step)
      : typeof reference === "number"
        ? policyName(record.model, reference)
        : undefined;
    return await whileHeld(task.context.live, held, async () => {
      try {
        // What the teacher said already, the worker need not compute.
        const folder = taught
          ? undefined
          : teacher
            ? await teacherFolder(task.context, teacher)
            : referenceFolder(task.context, record.model, reference);
        const made = await stepOnWorker(task, stepPlan.config.step, stepPlan.plan, (folders) =>
          encodeStepData(stepPlan, completions, { ...folders, reference: folder }, taught),
        );
        // Of no use once this is committed, and large.
        delete stored.taught;
        const { seed, loss } = stepPlan.config;
        if (earlier) made.metrics[differenceMetric] ??= earlier.mean;
        return {
          ...{ ...made, seed, cursor: record.op.cursor, objective: madeBy(loss) },
          ...(teacher && { teacher }),
        };
      } catch (error) {
        // The members that are left lie exactly on their group's mean.
        if (workerCode(error) !== "nothing_to_train") throw error;
        return endUntrained(task, equalised(outcome), stepPlan.rollouts);
      }
    });
  },

  result(context, { model, work: stored }, step, metrics) {
    const warnings = mismatchWarnings(metrics, context.base.dtype);
    return {
      type: "train",
      trained: true,
      step,
      policy: policyName(model, step),
      checkpoint: checkpointName(model, step),
      reasons: stored?.outcome.reasons ?? {},
      groups: stored?.outcome.groups ?? [],
      metrics,
      warnings: [...(stored?.outcome.warnings ?? []), ...warnings],
    };
  },
};

async function readCompletions({ context, record }: TrainTask): Promise<Completions> {
  await context.store.flush();
  const completions = new Map<string, LedgerCompletion>();
  const pauses = createPauses();
  for (const { rollouts } of record.op.groups) {
    for (const { rolloutId } of rollouts) {
      await pauses.due();
      for (const completion of await context.ledger.list(rolloutId)) {
        completions.set(completion.id, completion);
      }
    }
  }
  return completions;
}

interface Teaching {
  teacher: Teacher | null;
  taught?: Taught | undefined;
}

/** What is trained, and what its teacher says of it, where that is known before the worker sees it. */
async function selectTaught(
  task: TrainTask,
  student: Model,
  completions: Completions,
): Promise<{ selection: Selection } & Teaching> {
  const { context, record, emit, signal } = task;
  const { op } = record;
  const filtered = (taught?: Taught) =>
    timed(emit, "filter", () => select(task, student, completions, taught));
  if (op.config.type !== "distill") return { selection: await filtered(), teacher: null };
  const { teacher: chosen, rewardCoef } = op.config;
  // What has no teacher still learns from its reward.
  const ofTaught = (taught: Taught) => filtered(rewardCoef === 0 ? taught : undefined);
  if (chosen === "given") {
    const taught = givenLogprobs(op);
    return { selection: await ofTaught(taught), teacher: null, taught };
  }
  const teacher = await findTeacher(context, student, op.config);
  const selection = await filtered();
  if (chosen === "base" || !("feedback" in chosen) || !teacher) return { selection, teacher };
  const { taught, warnings } = await timed(emit, "teacher", () =>
    onceThere(task.context.ready, task.signal, () =>
      readFeedback(context, { op, student, teacher, selection, signal }, completions),
    ),
  );
  const left = await ofTaught(taught);
  return {
    selection: { ...left, warnings: [...left.warnings, ...warnings] },
    teacher,
    taught,
  };
}

function select(
  { context, record }: TrainTask,
  model: Model,
  completions: Completions,
  taught?: Taught,
): Selection {
  const { groups: given, config } = record.op;
  const byRollout = new Map<string, LedgerCompletion[]>();
  for (const completion of completions.values()) {
    const known = byRollout.get(completion.rolloutId);
    if (known) known.push(completion);
    else byRollout.set(completion.rolloutId, [completion]);
  }
  const groups: FilterGroup[] = given.map((group) => ({
    id: group.id,
    failed: group.failed ?? null,
    members: group.rollouts.map(({ rolloutId, reward, completions: told }) => {
      const made = byRollout.get(rolloutId) ?? [];
      return { rolloutId, reward, completions: made, training: namedCompletions(made, told) };
    }),
  }));
  return selectForTraining(groups, {
    ...config,
    compares: config.type !== "distill",
    taught: taught && new Set(Object.keys(taught)),
    step: model.learnt,
    maxSequenceTokens: config.maxSequenceTokens ?? context.base.maxModelLen,
  });
}

/** As it is now: the plan names the code that makes the step. A worker that is away is waited for, as for the step. */
async function customOf(task: TrainTask): Promise<{ sha256: string } | null> {
  const { config } = task.record.op;
  if (config.type !== "custom") return null;
  return await onceThere(task.context.ready, task.signal, () =>
    task.context.trainer.checkObjective(config),
  );
}

async function decidePlan(
  task: TrainTask,
  model: Model,
  selection: Selection,
  { teacher, taught }: Teaching,
  completions: Completions,
): Promise<void> {
  const { context, record } = task;
  const { config } = record.op;
  const step = model.learnt + 1;
  const custom = await customOf(task);
  const plan = planSelection(selection, completions, config);
  const warnings = [...selection.warnings];
  if (plan.length < config.optimizerSteps) {
    warnings.push(
      `optimizerSteps is ${config.optimizerSteps}, but only ${plan.length} group(s) train: ${plan.length} step(s) are taken.`,
    );
  }
  const idle = idleWarning(record.op, plan.length);
  if (idle !== null) warnings.push(idle);
  record.work = {
    work: {
      rollouts: selection.rollouts,
      completions: selection.completions,
      plan,
      config: trainerConfig(
        {
          operation_id: record.id,
          model: model.name,
          step,
          lora: model.lora,
          max_mismatch: config.maxMismatch ?? (context.base.dtype === "float32" ? 0.1 : 0.5),
          seed: seedOf(model, step),
        },
        config,
        custom?.sha256,
      ),
    },
    outcome: { groups: selection.groups, reasons: selection.reasons, warnings },
    ...(teacher && { teacher }),
    ...(taught && { taught }),
  };
  await context.store.write([updateOperation(record)]);
  fault("operation.planned");
}

/** What the manifest says of the code that made a policy. Plans from before there was a choice name no type. */
function madeBy(loss: TrainerConfig["loss"]): Staged["objective"] {
  if (loss.type === "custom" && "sha256" in loss) {
    return { type: "custom", name: loss.name, sha256: loss.sha256 };
  }
  return { type: loss.type ?? "policy_gradient" };
}

/** The outcome of an operation whose trainable members turned out to have no advantage. */
function equalised(outcome: TrainOutcome): TrainOutcome {
  const reasons = { ...outcome.reasons };
  const groups = outcome.groups.map((group) => {
    if (group.reason !== null) return group;
    reasons.zero_variance = (reasons.zero_variance ?? 0) + 1;
    return { ...group, reason: "zero_variance" as const, trainedRollouts: 0 };
  });
  return { groups, reasons, warnings: outcome.warnings };
}

/**
 * N stays, and the rollouts may be part of another operation. The cursor moves: these scenarios were tried,
 * and `batches` goes on with the next ones.
 */
async function endUntrained(
  { context: { models }, record, emit }: TrainTask,
  { reasons, groups, warnings }: TrainOutcome,
  rollouts: readonly SelectedRollout[],
): Promise<Outcome> {
  const { name, learnt, cursor } = models.require(record.model);
  for (const message of warnings) if (!record.work) emit({ type: "warning", message });
  record.work = null;
  record.result = {
    type: "train",
    trained: false,
    step: learnt,
    policy: policyName(name, learnt),
    reasons,
    groups,
    metrics: rewardMetrics(rollouts),
    checkpoint: null,
    warnings,
  };
  const given = record.op.untrainedCursor ?? record.op.cursor;
  await models.setCursor(name, given === undefined ? cursor : given, [updateOperation(record)]);
  return "nothing";
}

function mismatchWarnings(metrics: TrainResult["metrics"], dtype: string): string[] {
  const mean = metrics[differenceMetric] ?? 0;
  const limit = dtype === "float32" ? 1e-3 : 0.1;
  if (mean <= limit) return [];
  return [
    `The engine's logprobs differ from the trainer's by ${mean.toPrecision(3)} on average (${limit} is usual at most in ${dtype}).`,
  ];
}
