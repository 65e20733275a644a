import { createHash } from "node:crypto";
import { HoneError, newId } from "@hone/core";
import type { SubmitOperation, SupervisedResult } from "@hone/core";
import type { Transport } from "@hone/transport";
import { orderOf } from "../training/dealer.ts";
import { scheduledRate } from "../training/schedule.ts";
import { startOperation } from "../training/train-handle.ts";
import { heldOut, openExamples } from "./examples-source.ts";
import type { ExamplesOf, ExamplesSource, ReadExample } from "./examples-source.ts";
import { supervisedRuns, withRuns } from "../training/supervised-cursor.ts";
import { checkRunOptions } from "./run-options.ts";
import { requireRoom } from "./request-room.ts";
import type { Together } from "./request-room.ts";
import type { RunOptions, SettledOptions, Validation } from "./run-options.ts";

/** What a supervised run learnt. */
export interface SupervisedRun {
  /** The newest policy, `name@N`, and its N. */
  policy: string;
  step: number;
  /** Steps of the run, and those of them that this call did: an earlier start may have done the others. */
  steps: number;
  done: number;
  /** The loss of each step that this call did; null where every example of it was left out. */
  losses: (number | null)[];
  /** Before the first step of this call, during the run, and after the last. Empty without a validation set. */
  validations: Validation[];
  /** Examples that were left out, and why, each time that a step or a validation met them. */
  dropped: { example: string; reason: string }[];
}

type SupervisedType = SupervisedResult["type"];

/** One way to learn from examples. */
export interface Learning<Example> {
  type: SupervisedType;
  /** What messages call it. */
  where: string;
  /** Names of the options of a step. */
  stepNames: readonly string[];
  read: ReadExample<Example>;
  /** The options of a step with their defaults; refuses what is not valid by its name. */
  check(options: object): StepConfig;
}

/** The model as a run needs it. */
export interface RunModel {
  name: string;
  transport: Transport;
  /** The cursor and the newest step, once nothing of the model is queued or running. */
  settled(): Promise<{ cursor: unknown; learnt: number; policy: string }>;
  /** Of each step. */
  noteLearnt(step: number): void;
  /** Keeps them in the cursors of later `train` steps. */
  noteRuns(runs: Readonly<Record<string, number>>): void;
}

interface StepConfig {
  learningRate: number;
}

export async function supervisedRun<Given, Example>(
  learning: Learning<Example>,
  model: RunModel,
  examples: ExamplesOf<Given>,
  options: RunOptions<Given>,
): Promise<SupervisedRun> {
  const { where, stepNames } = learning;
  const { own, step: given } = checkRunOptions(where, stepNames, options);
  const step = learning.check(given);
  const { signal } = own;
  const { read } = learning;
  const all = await openExamples<Given, Example>(where, "examples", examples, read, signal);
  const opened = [all];
  try {
    let train = all;
    let validation: ExamplesSource<Example> | null = null;
    if (typeof own.validation === "number") {
      const order = orderOf({ size: all.size, seed: own.seed, epoch: 0, shuffle: true });
      ({ train, validation } = await heldOut(all, own.validation, order, signal));
    } else if (own.validation !== undefined) {
      validation = await openExamples<Given, Example>(
        where,
        "validation",
        own.validation,
        read,
        signal,
      );
      opened.push(validation);
    }
    if (train.size === 0) {
      throw new HoneError(`${where} needs at least one example.`, {
        code: "invalid_config",
        param: "examples",
      });
    }
    const run = new Run(learning.type, model, { where, train, validation, own, step });
    return await run.toItsEnd();
  } finally {
    await Promise.all(opened.map((source) => source.close()));
  }
}

interface RunParts<Given, Example> {
  /** What messages call it. */
  where: string;
  train: ExamplesSource<Example>;
  validation: ExamplesSource<Example> | null;
  own: SettledOptions<Given>;
  step: StepConfig;
}

class Run<Given, Example> {
  readonly #type: SupervisedType;
  readonly #model: RunModel;
  readonly #parts: RunParts<Given, Example>;
  readonly #learnt: SupervisedRun;

  constructor(type: SupervisedType, model: RunModel, parts: RunParts<Given, Example>) {
    this.#type = type;
    this.#model = model;
    this.#parts = parts;
    const { train, own } = parts;
    this.#learnt = {
      policy: "",
      step: 0,
      steps: own.epochs * Math.ceil(train.size / own.batchSize),
      done: 0,
      losses: [],
      validations: [],
      dropped: [],
    };
  }

  async toItsEnd(): Promise<SupervisedRun> {
    const { train, own } = this.#parts;
    const learnt = this.#learnt;
    const { cursor, learnt: newest, policy } = await this.#model.settled();
    learnt.policy = policy;
    learnt.step = newest;
    const runs = supervisedRuns(cursor);
    const kept = typeof cursor === "object" && cursor ? cursor : {};
    const name = this.#name(runs);
    const before = Math.min(Object.hasOwn(runs, name) ? (runs[name] ?? 0) : 0, learnt.steps);
    if (before > 0) own.onProgress?.({ type: "resumed", step: before, steps: learnt.steps });
    if (before === learnt.steps) return learnt;
    const { where, validation, step } = this.#parts;
    const cursorThen = withRuns(kept, { [name]: learnt.steps });
    const last = { type: this.#type, config: step, cursor: cursorThen };
    const besides = Buffer.byteLength(JSON.stringify(last));
    requireRoom(where, train, this.#steps(before), besides);
    if (validation) requireRoom(where, validation, this.#measured(validation.size), besides);
    const every = own.validateEvery ?? Math.ceil(train.size / own.batchSize);
    let expectedStep = newest;
    await this.#validate(before);
    for (const { done, ...of } of this.#steps(before)) {
      const committed = withRuns(kept, { [name]: done + 1 });
      const result = await this.#step(done, of, { expectedStep, cursor: committed });
      this.#model.noteRuns(supervisedRuns(committed));
      expectedStep = result.step;
      if ((done + 1) % every === 0 || done + 1 === learnt.steps) await this.#validate(done + 1);
    }
    return learnt;
  }

  /**
   * What the model's cursor calls the run. Unnamed, the same data in the same order is the same run; what it is
   * trained with may change on the way. A named one may change its data too, but not what its steps are cut by: the
   * count of steps would then stand for other examples.
   */
  #name(runs: Readonly<Record<string, number>>): string {
    const { train, own } = this.#parts;
    const { batchSize, seed, shuffle } = own;
    if (own.run === undefined) {
      const order = JSON.stringify([this.#type, train.sha, batchSize, seed, shuffle]);
      return createHash("sha256").update(order).digest("hex").slice(0, 16);
    }
    const begins = `${JSON.stringify([this.#type, own.run])} `;
    const name = `${begins}${train.size} examples, batchSize ${batchSize}, seed ${seed}, shuffle ${shuffle}`;
    const other = Object.keys(runs).find((run) => run.startsWith(begins) && run !== name);
    if (other === undefined) return name;
    throw new HoneError(
      `${this.#parts.where}: the run "${own.run}" was begun with ${other.slice(begins.length)}, and is now called with ` +
        `${name.slice(begins.length)}. Its steps would stand for other examples. Put that back, or name another run.`,
      { code: "invalid_config", param: "run" },
    );
  }

  /** The steps after the first `done` ones. */
  *#steps(done: number): Generator<Together & { done: number; epoch: number }> {
    const { train, own } = this.#parts;
    const { seed, shuffle, batchSize } = own;
    const { steps } = this.#learnt;
    const { size } = train;
    const perEpoch = Math.ceil(size / batchSize);
    let epoch = -1;
    let order: number[] = [];
    for (let at = done; at < steps; at += 1) {
      if (epoch !== Math.floor(at / perEpoch)) {
        epoch = Math.floor(at / perEpoch);
        order = orderOf({ size, seed, epoch, shuffle });
      }
      const first = (at % perEpoch) * batchSize;
      const indices = order.slice(first, first + batchSize);
      yield { name: `step ${at + 1} of ${steps}`, done: at, epoch, indices };
    }
  }

  /** What a validation sends together. */
  *#measured(size: number): Generator<Together> {
    const { batchSize } = this.#parts.own;
    for (let first = 0; first < size; first += batchSize) {
      const length = Math.min(batchSize, size - first);
      const indices = Array.from({ length }, (_, at) => first + at);
      yield { name: "what the validation measures together", indices };
    }
  }

  async #step(
    done: number,
    { epoch, indices }: { epoch: number; indices: readonly number[] },
    submission: { expectedStep: number; cursor: unknown },
  ): Promise<SupervisedResult> {
    const { train, own, step } = this.#parts;
    const { schedule } = own;
    const learnt = this.#learnt;
    const learningRate = schedule
      ? scheduledRate(step.learningRate, schedule, { trained: done, steps: learnt.steps })
      : step.learningRate;
    const { result } = await this.#operation(train, indices, {
      config: { ...step, learningRate },
      cursor: submission.cursor,
      expectedStep: submission.expectedStep,
    });
    this.#model.noteLearnt(result.step);
    const loss = result.metrics["loss"] ?? null;
    learnt.policy = result.policy;
    learnt.step = result.step;
    learnt.done += 1;
    learnt.losses.push(loss);
    own.onProgress?.({
      type: "step",
      step: done + 1,
      steps: learnt.steps,
      epoch,
      loss,
      learningRate,
      policy: result.policy,
      metrics: result.metrics,
    });
    return result;
  }

  /** Nothing is trained: operations that only measure, in the same queue, so that the policy is the step's. */
  async #validate(step: number): Promise<void> {
    const { validation, own, step: config } = this.#parts;
    if (!validation) return;
    const sums = new Map<string, number>();
    let weight = 0;
    let policy = "";
    for (const { indices } of this.#measured(validation.size)) {
      const { result } = await this.#operation(validation, indices, { config, evaluate: true });
      policy = result.policy;
      // A mean over tokens weighs by tokens, one over pairs by pairs.
      const of = this.#type === "sft" ? (result.metrics["train_tokens"] ?? 0) : result.examples;
      weight += of;
      for (const [metric, value] of Object.entries(result.metrics)) {
        if (value !== null) sums.set(metric, (sums.get(metric) ?? 0) + value * of);
      }
    }
    if (weight === 0) {
      throw new HoneError(
        "No example of the validation set can be trained. See `dropped` for the reasons.",
        {
          code: "invalid_config",
          param: "validation",
        },
      );
    }
    const metrics = Object.fromEntries([...sums].map(([metric, sum]) => [metric, sum / weight]));
    const loss = metrics["loss"] ?? Number.NaN;
    const perplexity = this.#type === "sft" ? Math.exp(loss) : null;
    const seen: Validation = { step, policy, loss, perplexity, metrics };
    this.#learnt.validations.push(seen);
    own.onProgress?.({ type: "validation", ...seen });
  }

  async #operation(
    source: ExamplesSource<Example>,
    indices: readonly number[],
    rest: { config: StepConfig; evaluate?: true; cursor?: unknown; expectedStep?: number },
  ): Promise<{ result: SupervisedResult }> {
    const { own } = this.#parts;
    const { expectedStep, ...op } = rest;
    const examples = await Promise.all(indices.map((index) => source.at(index)));
    const place = (index: number) => source.place(indices[index] ?? -1);
    const handle = startOperation<SupervisedResult>({
      transport: this.#model.transport,
      model: this.#model.name,
      submission: {
        clientToken: newId("op"),
        ...(expectedStep === undefined ? {} : { expectedStep }),
        op: { type: this.#type, examples, ...op } as SubmitOperation["op"],
      },
      types: ["sft", "dpo", "bradley_terry"],
      signal: own.signal,
      onEvent: own.onEvent,
      onResult: (result) => result,
    });
    const result = await handle.result.catch((error: unknown) => {
      throw withPlace(error, place);
    });
    for (const { index, reason } of result.dropped) {
      this.#learnt.dropped.push({ example: place(index), reason });
    }
    return { result };
  }
}

/** The server knows an example by its place in the step; its reader knows it by its place in the data. */
function withPlace(error: unknown, place: (index: number) => string): unknown {
  const index = HoneError.isInstance(error) && /^op\.examples\[(\d+)\]/.exec(error.param ?? "");
  if (!index || !HoneError.isInstance(error)) return error;
  const name = place(Number(index[1]));
  const message = error.message.replace(/^Example \d+ \(from 0\)/, name);
  return new HoneError(message === error.message ? `${name}: ${message}` : message, {
    code: error.code,
    param: name,
    cause: error,
  });
}
