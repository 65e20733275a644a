import { HoneError } from "@hone/core";
import type { TrainResult } from "@hone/core";
import { defaultMaxIdleBatches, planBatches, trainedSteps } from "./batches.ts";
import type { Batch, BatchCursor, BatchesOptions } from "./batch.ts";
import { warn } from "../warn.ts";

/** What became of a batch; null if its step failed and committed nothing. */
type Outcome = Pick<TrainResult, "trained" | "reasons"> | null;

const outcomes = new WeakMap<BatchCursor, Promise<Outcome>>();

/** Notes the step that trains a batch. Until that step ends, the batch counts as one of the run's steps. */
export function noteStep(cursor: BatchCursor, result: Promise<TrainResult>): void {
  outcomes.set(
    cursor,
    result.catch(() => null),
  );
}

interface Watched {
  step: Promise<Outcome>;
  /** undefined while the step is under way. */
  outcome: Outcome | undefined;
}

/**
 * Deals out the batches of a run, and learns from each step's result whether the batch counts as a step. It does
 * not wait for a step that is under way: its result counts from the next batch on. Only the last batch waits.
 */
export async function* runBatches<Scenario>(
  model: string,
  scenarios: readonly Scenario[],
  options: BatchesOptions,
  committed: unknown,
): AsyncGenerator<Batch<Scenario>, void, undefined> {
  const most = options.maxIdleBatches ?? defaultMaxIdleBatches;
  sayWhatIsLeft(model, options.steps, committed);
  const plan = planBatches(scenarios, options, committed);
  /** Steps under way, in the order of their batches. */
  let watched: Watched[] = [];
  let idle: Outcome[] = [];
  for (let next = plan.next(); !next.done;) {
    yield next.value;
    // It may have moved: the batch may have drawn more.
    const { cursor } = next.value;
    const step = outcomes.get(cursor);
    if (step) watched.push(watch(step));
    // The last step of the run, if all before it count: whether they do decides whether there is another.
    if (cursor.trained >= options.steps) await Promise.all(watched.map((one) => one.step));
    // One turn of the loop lets a step that has ended say so.
    await Promise.resolve();
    const ended = watched.flatMap(({ outcome }) => (outcome === undefined ? [] : [outcome]));
    watched = watched.filter(({ outcome }) => outcome === undefined);
    let untrained = 0;
    for (const outcome of ended) {
      if (outcome?.trained) idle = [];
      else {
        idle.push(outcome);
        untrained += 1;
      }
    }
    const trained = cursor.trained - untrained;
    if (idle.length >= most) {
      stop(model, idle, { trained, steps: options.steps });
      return;
    }
    next = plan.next(untrained);
  }
}

function watch(step: Promise<Outcome>): Watched {
  const one: Watched = { step, outcome: undefined };
  void step.then((outcome) => {
    one.outcome = outcome;
  });
  return one;
}

function sayWhatIsLeft(model: string, steps: number, committed: unknown): void {
  const done = trainedSteps(committed);
  if (done === 0) return;
  const left =
    done < steps
      ? `${steps - done} are left`
      : "none is left, so that batches() yields nothing. Give more steps, or begin a run under another model name";
  warn(`${done} of the ${steps} steps of ${model} are trained: ${left}.`);
}

/** Ends the run: with a warning if rewards no longer differ (the task may be learnt), otherwise with an error. */
function stop(
  model: string,
  idle: readonly Outcome[],
  { trained, steps }: { trained: number; steps: number },
): void {
  const reasons = new Map<string, number>();
  for (const outcome of idle) {
    for (const [reason, count] of Object.entries(outcome?.reasons ?? { "failed steps": 1 })) {
      reasons.set(reason, (reasons.get(reason) ?? 0) + count);
    }
  }
  const why = [...reasons].map(([reason, count]) => `${count} ${reason}`).join(", ");
  const what = `The last ${idle.length} batches of ${model} trained nothing (groups: ${why || "none"}).`;
  const left = `They took none of the run's steps: ${trained} of ${steps} are trained`;
  if ([...reasons.keys()].every((reason) => reason === "zero_variance") && reasons.size > 0) {
    warn(
      `${what} Rewards do not differ any more, so the run stops here. ${left}. Take harder scenarios or a finer reward to go on.`,
    );
    return;
  }
  throw new HoneError(
    `${what} ${left}. Mend what the reasons name, and start the program again: it goes on from there.`,
    { code: "nothing_trained" },
  );
}
