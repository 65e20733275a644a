import { HoneError } from "@hone/core";
import type { TrainResult } from "@hone/core";
import { defaultMaxIdleBatches, planBatches, trainedSteps } from "./batches.ts";
import type { Batch, BatchCursor, BatchesOptions } from "./batch.ts";
import { noteEnded, noteSubmitted } from "./dealer.ts";
import { warn } from "../warn.ts";

/** What became of a batch; null if its step failed and committed nothing. */
type Outcome = Pick<TrainResult, "trained" | "reasons" | "groups"> | null;

const outcomes = new WeakMap<BatchCursor, Promise<Outcome>>();

/** Notes the step that trains a batch. Until that step ends, the batch counts as one of the run's steps. */
export function noteStep(cursor: BatchCursor, result: Promise<TrainResult>): void {
  const outcome = result.catch(() => null);
  outcomes.set(cursor, outcome);
  noteSubmitted(cursor);
  void outcome.then((ended) => noteEnded(cursor, ended?.trained ?? false));
}

/** What becomes of the step that trains the batch of a cursor; undefined if there is none yet. */
export function resultOf(cursor: BatchCursor): Promise<Outcome> | undefined {
  return outcomes.get(cursor);
}

/** Batches that a loop may have taken and not yet trained: those before them are not going to be. */
const mostOpen = 16;

interface Watched {
  cursor: BatchCursor;
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
  /** Batches without a step so far: one that is played ahead gets its step after the next was dealt out. */
  let open: Batch<Scenario>[] = [];
  /** Steps under way, in the order of their batches. */
  let watched: Watched[] = [];
  let trained = trainedSteps(committed);
  let idle: Outcome[] = [];
  for (let next = plan.next(); !next.done;) {
    yield next.value;
    open.push(next.value);
    open = open.slice(-mostOpen).filter(({ cursor }) => {
      const step = outcomes.get(cursor);
      if (step) watched.push(watch(cursor, step));
      return !step;
    });
    // The last step of the run, if all before it count: whether they do decides whether there is another. Its cursor
    // is read now: the batch may have drawn more, or count less since.
    if (next.value.cursor.trained >= options.steps)
      await Promise.all(watched.map((one) => one.step));
    // One turn of the loop lets a step that has ended say so.
    await Promise.resolve();
    const ended = watched.flatMap(({ cursor, outcome }) => {
      if (outcome === undefined) return [];
      // Before the next batch is dealt out, which is told of it below.
      noteEnded(cursor, outcome?.trained ?? false);
      return [outcome];
    });
    watched = watched.filter(({ outcome }) => outcome === undefined);
    let untrained = 0;
    for (const outcome of ended) {
      if (outcome?.trained) {
        idle = [];
        trained += 1;
      } else {
        idle.push(outcome);
        untrained += 1;
      }
    }
    if (idle.length >= most) {
      stop(model, idle, { trained, steps: options.steps });
      return;
    }
    next = plan.next(untrained);
  }
}

function watch(cursor: BatchCursor, step: Promise<Outcome>): Watched {
  const one: Watched = { cursor, step, outcome: undefined };
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

/**
 * Ends the run: with a warning if rewards no longer differ where there are any (the task may be learnt), otherwise with
 * an error. A group without rewards is no fault by itself: none may apply to it. A judge that failed is told apart.
 */
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
  const unrewarded = reasons.has("no_reward");
  const others = [...reasons.keys()].filter(
    (reason) => reason !== "zero_variance" && reason !== "no_reward",
  );
  if (others.length === 0 && reasons.has("zero_variance")) {
    warn(
      `${what} Rewards do not differ any more${unrewarded ? " where there are any" : ""}, so the run stops here. ${left}. Take harder scenarios or a finer reward to go on.`,
    );
    return;
  }
  const enough = trained > 0 ? ` Or let it end with what it has: give ${trained} steps.` : "";
  throw new HoneError(
    `${what} ${left}. Mend what the reasons name, and start the program again: it goes on from there.${enough}`,
    { code: "nothing_trained" },
  );
}
