import { HoneError, newId, policyName, trainConfigKeys } from "@hone/core";
import type {
  Datum,
  ForwardResult,
  ModelInfo,
  OperationEvent,
  OptimStepResult,
  SubmitOperation,
  TrainConfig,
  TrainResult,
  Trajectory,
  TrajectoryGroup,
} from "@hone/core";
import pLimit from "p-limit";
import { noteStep, runBatches } from "./training/batch-run.ts";
import { checkBatchesOptions, untrainedCursor } from "./training/batches.ts";
import type { Batch, BatchesOptions } from "./training/batch.ts";
import { failedMark } from "./training/compared.ts";
import { cursorWith } from "./training/dealer.ts";
import { checkSchedule, scheduledRate, type Schedule } from "./training/schedule.ts";
import { kindOf, refuseUnknownOptions, requireObject, wrongKind } from "@hone/core";
import {
  optionalFunction,
  requireGroups,
  requireList,
  requireOnlySignal,
  requireSignal,
  requireSome,
  requireSubmission,
} from "./argument-kinds.ts";
import type { ComparisonModel } from "./rollouts/comparison-model.ts";
import { teacherLogprobs } from "./distillation/teacher-logprobs.ts";
import type { TeacherLogprobs, TeacherLogprobsOptions } from "./distillation/teacher-logprobs.ts";
import { Policy } from "./rollouts/policy.ts";
import { withRuns } from "./training/supervised-cursor.ts";
import { startOperation } from "./training/train-handle.ts";
import type { TrainHandle } from "./training/train-handle.ts";
import { checkTrainConfig } from "./training/train-config.ts";
import { pause, type Transport } from "@hone/transport";
import { imitation } from "./supervised/sft.ts";
import type { SftExamples, SftOptions } from "./supervised/sft.ts";
import { rewardModel } from "./supervised/bradley-terry.ts";
import type { BradleyTerryOptions } from "./supervised/bradley-terry.ts";
import { preference } from "./supervised/dpo.ts";
import type { DpoExamples, DpoOptions } from "./supervised/dpo.ts";
import { supervisedRun } from "./supervised/supervised-run.ts";
import type { RunModel, SupervisedRun } from "./supervised/supervised-run.ts";
import { forward, forwardBackward, optimStep } from "./primitives/primitives.ts";
import type {
  ForwardBackwardOptions,
  ForwardOptions,
  LoopModel,
  OptimStepOptions,
} from "./primitives/primitives.ts";
import { warn } from "./warn.ts";

/** A batch as `batches` deals it out. Without a `schedule`, an object with its cursor alone will do. */
type TrainedBatch = Pick<Batch<unknown>, "cursor"> &
  Partial<Pick<Batch<unknown>, "trained" | "steps">>;

export type TrainOptions = TrainConfig & OwnTrainOptions;

interface OwnTrainOptions {
  /** With `teacher: "given"`: what `teacherLogprobs` gave for these groups. */
  teacherLogprobs?: TeacherLogprobs | undefined;
  /** With a teacher that reads feedback: what it is told about a trajectory; null where there is nothing to tell. */
  feedback?: ((trajectory: Trajectory) => string | null | undefined) | undefined;
  /** The batch that the groups come from. Its cursor is committed together with the step. */
  batch?: TrainedBatch | undefined;
  /** How the learning rate falls over the run that `batch` belongs to. @default { type: "constant" } */
  schedule?: Schedule | undefined;
  /** The number that the newest learnt policy should have. If it has another, the error is `step_mismatch`. */
  expectedStep?: number | undefined;
  /** Names the step. If you submit the same token again, even after a crash, you get the same step. */
  clientToken?: string | undefined;
  onEvent?: ((event: OperationEvent) => void) | undefined;
  /** Aborting it ends the operation on the server too. */
  signal?: AbortSignal | undefined;
}

/** Time between two looks at a model whose operations have not ended. */
const settlePollMs = 300;
/** A wait that takes longer than this says so. */
const noticeAfterMs = 5_000;

const ownTrainOptions = [
  "teacherLogprobs",
  "feedback",
  "batch",
  "schedule",
  "expectedStep",
  "clientToken",
  "onEvent",
  "signal",
] as const;

export class Model extends Policy {
  /** The newest step that this program knows of. */
  #learnt: number;
  /** Supervised runs that this program took further, as the newest of their steps has them. */
  #runs: Readonly<Record<string, number>> = {};
  readonly #loop: LoopModel;

  constructor(transport: Transport, name: string, learnt: number) {
    super(transport, name, null);
    this.#learnt = learnt;
    this.#loop = { name, transport, inOrder: pLimit(1) };
  }

  /** Policy `step` of this model, to compare with. `at(0)` is the untrained model. */
  at(step: number): Policy {
    if (Number.isSafeInteger(step) && step >= 0) return new Policy(this.transport, this.name, step);
    throw new HoneError(`A policy's step is a whole number from 0, not ${kindOf(step)}.`, {
      code: "policy_not_found",
      param: "step",
    });
  }

  /**
   * Deals the scenarios out, a batch for each step. It continues after the last batch whose step the server
   * committed. If an earlier run left a step under way, it waits for that step first, because the step's batch is
   * used up once it is committed. A batch that trained nothing does not count as a step; after `maxIdleBatches`
   * of them in a row the run stops.
   */
  async *batches<Scenario>(
    scenarios: readonly Scenario[],
    options: BatchesOptions,
  ): AsyncGenerator<Batch<Scenario>, void, undefined> {
    requireList("batches()", scenarios, "scenarios");
    checkBatchesOptions(scenarios, options);
    requireSignal("batches()", options);
    const { cursor: committed } = await this.#settled("batches()", options.signal);
    yield* runBatches(this.name, scenarios, options, committed);
  }

  /** The cursor of the newest batch that is done, once no operation of this model is under way. */
  async committed(options: { signal?: AbortSignal | undefined } = {}): Promise<unknown> {
    requireOnlySignal("committed()", options);
    return (await this.#settled("committed()", options.signal)).cursor;
  }

  async #settled(where: string, signal: AbortSignal | undefined): Promise<ModelInfo> {
    for (let waited = 0; ; waited += settlePollMs) {
      const info = await this.info({ signal });
      const { operations } = info;
      if (operations.length === 0) {
        this.#learnt = info.learnt;
        return info;
      }
      if (waited >= noticeAfterMs && waited < noticeAfterMs + settlePollMs) {
        warn(
          `${where} of ${this.name} waits for ${operations.join(", ")}, which an earlier run left under way.`,
        );
      }
      await pause(settlePollMs, signal);
    }
  }

  /** Trains one step on the groups. Policy N+1 is made from N, or the result says why nothing was trained. */
  async train(
    groups: readonly TrajectoryGroup[],
    options: TrainOptions = {},
  ): Promise<TrainResult> {
    return await this.startTrain(groups, options).result;
  }

  /** Like `train`, but returns at once, with a handle of the step under way. */
  startTrain(groups: readonly TrajectoryGroup[], options: TrainOptions = {}): TrainHandle {
    requireGroups("train()", groups);
    refuseUnknownOptions("train()", options, [...trainConfigKeys, ...ownTrainOptions]);
    const { batch, schedule, expectedStep, clientToken, onEvent, signal, ...others } = options;
    const { teacherLogprobs: taught, feedback, ...given } = others;
    requireSubmission("train()", options);
    requireSignal("train()", options);
    optionalFunction("train()", onEvent, "onEvent");
    optionalFunction("train()", feedback, "feedback");
    if (batch !== undefined) requireBatch(batch);
    const config = withSchedule(given, schedule, batch);
    requireTeaching(config, taught, feedback);
    requireSome("train()", groups, "groups");
    // The batch was dealt out before what `sft` and `dpo` may have done since.
    const dealt = batch && cursorWith(batch.cursor, groups);
    const cursor = dealt && withRuns(dealt, this.#runs);
    const handle = startOperation<TrainResult>({
      transport: this.transport,
      model: this.name,
      submission: {
        clientToken: clientToken ?? newId("op"),
        ...(expectedStep === undefined ? {} : { expectedStep }),
        op: {
          type: "train",
          groups: groups.map((group, index) => trainGroup(group, index, taught, feedback)),
          config,
          ...(cursor === undefined ? {} : { cursor, untrainedCursor: untrainedCursor(cursor) }),
        },
      },
      types: ["train"],
      signal,
      onEvent,
      onResult: (result) => this.#noteStep(result),
    });
    if (dealt !== undefined) noteStep(dealt, handle.result);
    return handle;
  }

  /**
   * Imitates examples: conversations in OpenAI's format or trajectories, as a list, an iterable or the path of a JSONL
   * file. Each step is an operation of the model, like those of `train`, on the same adapter. A program that is started
   * again goes on after the last step that the server committed; a run that has all its steps trains nothing more.
   */
  async sft(examples: SftExamples, options: SftOptions = {}): Promise<SupervisedRun> {
    return await supervisedRun(
      imitation,
      this.#runModel("sft()", options.signal),
      examples,
      options,
    );
  }

  /** Learns which of two answers is better (DPO). Its runs are resumed as those of `sft` are. */
  async dpo(pairs: DpoExamples, options: DpoOptions = {}): Promise<SupervisedRun> {
    return await supervisedRun(preference, this.#runModel("dpo()", options.signal), pairs, options);
  }

  /**
   * Learns to score conversations from pairs of them (Bradley and Terry): a reward model, which `/v1/score` asks under
   * this model's name. Its runs are resumed as those of `sft` are.
   */
  async bradleyTerry(
    pairs: DpoExamples,
    options: BradleyTerryOptions = {},
  ): Promise<SupervisedRun> {
    const model = this.#runModel("bradleyTerry()", options.signal);
    return await supervisedRun(rewardModel, model, pairs, options);
  }

  /**
   * The gradient of the newest policy on token ids, added to that of earlier calls. `optimStep` makes the next policy
   * of it. Calls need not be awaited one by one: they are done in their order.
   */
  async forwardBackward(
    data: readonly Datum[],
    options: ForwardBackwardOptions = {},
  ): Promise<ForwardResult> {
    return await forwardBackward(this.#loop, data, options);
  }

  /** The same without a gradient: logprobs and loss of the newest policy on token ids. */
  async forward(data: readonly Datum[], options: ForwardOptions = {}): Promise<ForwardResult> {
    return await forward(this.#loop, data, options);
  }

  /** One step of AdamW along the gradients that `forwardBackward` has left: policy N+1, which is then served. */
  async optimStep(options: OptimStepOptions = {}): Promise<OptimStepResult> {
    const result = await optimStep(this.#loop, options);
    this.#learnt = Math.max(this.#learnt, result.step);
    return result;
  }

  /**
   * How likely a model of another API finds what these rollouts sampled, for `train` with `teacher: "given"`. The API
   * has to score given token ids, as vLLM and Hone do (`prompt_logprobs`), and to have the same tokenizer.
   */
  async teacherLogprobs(
    groups: readonly TrajectoryGroup[],
    teacher: ComparisonModel,
    options: TeacherLogprobsOptions = {},
  ): Promise<TeacherLogprobs> {
    return await teacherLogprobs(this.transport, groups, teacher, options);
  }

  #runModel(where: string, signal: AbortSignal | undefined): RunModel {
    return {
      name: this.name,
      transport: this.transport,
      settled: async () => {
        const { cursor, learnt } = await this.#settled(where, signal);
        return { cursor, learnt, policy: policyName(this.name, learnt) };
      },
      noteLearnt: (step) => {
        this.#learnt = Math.max(this.#learnt, step);
      },
      noteRuns: (runs) => {
        this.#runs = runs;
      },
    };
  }

  /** Warns of steps that this program neither made nor knew of: another program trains the same model. */
  #noteStep(result: TrainResult): TrainResult {
    const from = result.trained ? result.step - 1 : result.step;
    const known = this.#learnt;
    this.#learnt = Math.max(known, result.step);
    if (from <= known) return result;
    const message =
      `${this.name} was at step ${known} when this program last saw it, and at ${from} when this step began: another ` +
      "program trains the same model, or imports into it. Give each program a model of its own, or pass `expectedStep` to refuse such a step.";
    warn(message);
    return { ...result, warnings: [...result.warnings, message] };
  }
}

function requireBatch(batch: object): void {
  const wanted = "a batch, as model.batches() deals it out, as batch";
  requireObject("train()", batch, wanted, "batch");
  // Without its cursor the step would be committed and its scenarios dealt out again.
  if (!("cursor" in batch) || typeof batch.cursor !== "object" || batch.cursor === null) {
    throw wrongKind("train()", wanted, batch, "batch");
  }
}

/** The configuration with the learning rate of this step: the server knows no schedule. */
function withSchedule(
  config: TrainConfig,
  schedule: Schedule | undefined,
  batch: TrainedBatch | undefined,
): TrainConfig {
  const { learningRate } = checkTrainConfig("train()", config);
  if (schedule === undefined) return config;
  checkSchedule("train()", schedule);
  const { trained, steps } = batch ?? {};
  if (trained !== undefined && steps !== undefined) {
    return { ...config, learningRate: scheduledRate(learningRate, schedule, { trained, steps }) };
  }
  throw new HoneError(
    "train(): schedule needs to know where the run is. Pass batch too, as model.batches() deals it out.",
    { code: "invalid_config", param: "batch" },
  );
}

/** What a teacher needs and what it does not read are told before anything is sent. */
function requireTeaching(
  config: TrainConfig,
  taught: TeacherLogprobs | undefined,
  feedback: OwnTrainOptions["feedback"],
): void {
  const teacher = config.type === "distill" ? config.teacher : null;
  const reads = teacher !== null && typeof teacher === "object" && "feedback" in teacher;
  for (const [name, given, wanted, needs] of [
    ["teacherLogprobs", taught !== undefined, teacher === "given", 'teacher: "given"'],
    ["feedback", feedback !== undefined, reads, "teacher: { feedback: true }"],
  ] as const) {
    if (given === wanted) continue;
    throw new HoneError(
      given
        ? `train(): ${name} does nothing without type "distill" and ${needs}. Leave it out.`
        : `train(): ${needs} needs ${name} beside it.`,
      { code: "invalid_request", param: name },
    );
  }
}

function copied(taught: TeacherLogprobs[string]): Record<string, number[]> {
  return Object.fromEntries(Object.entries(taught).map(([id, logprobs]) => [id, [...logprobs]]));
}

type TrainGroup = Extract<SubmitOperation["op"], { type: "train" }>["groups"][number];

function trainGroup(
  group: TrajectoryGroup,
  groupIndex: number,
  taught: TeacherLogprobs | undefined,
  feedback: OwnTrainOptions["feedback"],
): TrainGroup {
  const rollouts = group.trajectories.map((trajectory, index) => {
    const { rolloutId, reward, completions } = trajectory;
    const param = `groups[${groupIndex}].trajectories[${index}]`;
    if (rolloutId === null) {
      throw new HoneError(
        `${param} has no rolloutId. train() takes trajectories that gather() made: the server trains on the tokens it sampled itself.`,
        { code: "invalid_request", param: `${param}.rolloutId` },
      );
    }
    // JSON turns NaN into null, which would read as "no reward".
    if (reward === null || Number.isFinite(reward)) {
      const logprobs = taught?.[rolloutId];
      const said = feedback?.(trajectory);
      return {
        rolloutId,
        reward,
        ...(completions === undefined ? {} : { completions }),
        ...(logprobs && { teacherLogprobs: copied(logprobs) }),
        ...(said && { feedback: said }),
      };
    }
    throw new HoneError(
      `${param}.reward is ${String(reward)}. A reward is a finite number, or null for none.`,
      { code: "invalid_reward", param: `${param}.reward` },
    );
  });
  const failed = failedMark(group);
  return { id: group.id, rollouts, ...(failed ? { failed } : {}) };
}
