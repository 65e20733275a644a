import { HoneError, type ErrorCode, type TrajectoryGroup } from "@hone/core";
import type { Model } from "../model.ts";
import type { Batch } from "../training/batch.ts";
import type { StepLog } from "../run-log/run-log.ts";
import { shuffleRewards } from "../training/control.ts";
import { fillBatch } from "../training/fill.ts";
import { playAhead, type PlayedBatch } from "../training/play-ahead.ts";
import { readOverlap } from "./run-options.ts";
import {
  createTimes,
  dropFailed,
  dropKept,
  dropPassed,
  keptRollouts,
  type KeptRollouts,
} from "./playing.ts";
import type { RunEvent } from "./run-event.ts";
import { evaluationLabel } from "./fixed-evaluations.ts";
import { waitingGroups } from "./paused-run.ts";
import { toleratedFailures, type Run } from "./run-play.ts";
import type { RunWatch } from "./run-watch.ts";
import { warn } from "../warn.ts";

/** A batch that was played. `overlap` is null where nothing was trained meanwhile. */
type Played = Pick<PlayedBatch<unknown>, "batch" | "groups" | "fill"> & {
  overlap: PlayedBatch<unknown>["overlap"] | null;
  /** Begun before the batch was played, where the step's time is to hold the playing. */
  step?: StepLog | undefined;
};

/** What `score` wants trained beside the groups of a batch. */
const beside = new WeakMap<Batch<unknown>, TrajectoryGroup[]>();

/**
 * Plays and trains the steps that the run still has, until the watch ends it. `baseline` are the base's answers to the
 * held-out scenarios.
 */
export async function trainSteps(
  model: Model,
  run: Run,
  {
    shuffled,
    watch,
    baseline,
  }: { shuffled: boolean; watch: RunWatch; baseline: readonly TrajectoryGroup[] },
): Promise<void> {
  const { task, settings, log, totals, onEvent, signal } = run.context;
  const out = log.folder;
  const { groupsPerStep, steps, seed, curriculum, evalEvery, evalHeldOut } = settings;
  const { shuffle, heldOut, metric = "reward" } = task;
  const plan = { groupsPerStep, steps, seed, shuffle, heldOut, curriculum, signal };
  const overlaps = readOverlap(settings) > 0;
  /** Steps that have trained; undefined before the first batch of this start. */
  let trained: number | undefined;
  // A batch that is dealt out ahead counts those that are still to train: what of them trains is not known yet.
  const soFar = (batch: Batch<unknown>) => (overlaps ? (trained ??= batch.trained) : batch.trained);
  const batches = untilEnded(model.batches(task.train, plan), async (batch) =>
    Boolean(await watch.ends(soFar(batch))),
  );
  const stage = new Stage(onEvent);
  const played = overlaps
    ? playedAhead(model, run, { batches, watch, stage })
    : playedInTurn(model, run, { batches, watch });
  await watch.evaluated(baseline.slice(0, evalHeldOut), 0);
  for await (const { batch, groups: given, fill, overlap, step = log.step(batch) } of played) {
    stage.take();
    const label = labelOf(batch);
    // Before the rewards of a control change places, and before anything trains on them.
    const looked = await watch.look(batch, given, beside.get(batch) ?? []);
    if (!looked) return;
    step.watched(looked.figures);
    const controlled = (those: TrajectoryGroup[], salt: number) =>
      shuffled ? shuffleRewards(those, seed * 1_000_003 + batch.step + salt) : those;
    const also = controlled(beside.get(batch) ?? [], 500_009);
    const groups = [...step.gathered(controlled(looked.groups, 0), fill, overlap, also), ...also];
    onEvent({ type: "began", label: `${label} training`, total: 1 });
    const { learningRate, schedule } = settings;
    const result = await totals
      .time("training", () =>
        model.train(groups, {
          ...{ ...settings.train, learningRate, schedule, batch, signal },
          onEvent: (event) => {
            step.onEvent(event);
            totals.onEvent(event);
            if (event.type !== "progress") return;
            onEvent({ type: "progressed", done: event.done / event.total, note: "" });
          },
        }),
      )
      .catch(async (error: unknown) => {
        // The rollouts themselves may be the reason: then the same ones would fail again in every start.
        if (signal.aborted || isElsewhere(error)) throw error;
        // Why the step failed is what counts, also on a disk that takes nothing more.
        await dropFailed(out, batch.step).catch(() => undefined);
        throw error;
      });
    await dropKept(out, batch.step);
    // First of all: a run that is killed here must not take the step for one that still waits.
    await watch.trained(batch.step);
    const record = await step.trained(result);
    await totals.save();
    const done = batch.trained + (result.trained ? 1 : 0);
    trained = done;
    onEvent({ type: "step-ended", step: done, steps, metric, record, result });
    if (result.trained && evalEvery > 0 && done % evalEvery === 0 && done < steps) {
      const scenarios = run.heldOut.slice(0, evalHeldOut);
      // No step is under way: the policy that is served is the one that was just trained.
      const how = { scenarios, baseline };
      const rollout = run.decidingRollout();
      await watch.evaluated(await run.evaluate(model, evaluationLabel(done), rollout, how), done);
    }
    stage.leave();
    // Batches that are played ahead were dealt out before this step had ended.
    if (await watch.ends(done)) return;
  }
}

/** Deals out no batch that would not be trained. */
async function* untilEnded(
  batches: AsyncIterable<Batch<unknown>>,
  ends: (batch: Batch<unknown>) => Promise<boolean>,
): AsyncGenerator<Batch<unknown>, void, undefined> {
  for await (const batch of batches) {
    if (await ends(batch)) return;
    yield batch;
  }
}

/** What both ways of playing go by. */
interface Dealing {
  batches: AsyncIterable<Batch<unknown>>;
  watch: RunWatch;
}

async function* playedInTurn(
  model: Model,
  run: Run,
  { batches, watch }: Dealing,
): AsyncGenerator<Played, void, undefined> {
  const { fill } = run.context.settings;
  const { log, onEvent, signal } = run.context;
  for await (const batch of batches) {
    // Before its rollouts: it times them.
    const step = log.step(batch);
    const play = playerOf(model, run, watch, onEvent);
    const playing = (scenarios: readonly unknown[]) => play(scenarios, { batch, signal });
    const { groups, fill: counts } = fill
      ? await fillBatch(batch, playing, fill === true ? {} : fill)
      : { groups: await playing(batch.scenarios), fill: null };
    yield { batch, groups, fill: counts, overlap: null, step };
  }
}

function playedAhead(
  model: Model,
  run: Run,
  { batches, watch, stage }: Dealing & { stage: Stage },
): AsyncIterable<Played> {
  const { settings, signal } = run.context;
  const { fill, train } = settings;
  const play = playerOf(model, run, watch, (event) => stage.tell(event));
  const ahead = readOverlap(settings);
  return playAhead(model, batches, play, { ahead, fill, maxStaleness: train.maxStaleness, signal });
}

/** Plays the scenarios of a batch, and further ones of it, and lets so many of its rollouts fail. */
function playerOf(model: Model, run: Run, watch: RunWatch, onEvent: (event: RunEvent) => void) {
  const { groupSize, temperature } = run.context.settings;
  const rollout = run.rolloutAt(temperature);
  const played = new WeakMap<Batch<unknown>, { rollouts: number; failed: number }>();
  const waiting = new WeakMap<Batch<unknown>, ReturnType<typeof waitingGroups>>();
  const dealt = new WeakMap<Batch<unknown>, ReturnType<typeof createTimes>>();
  const opened = new WeakMap<Batch<unknown>, Promise<KeptRollouts>>();
  const { folder, records } = run.context.log;
  let isFirst = true;
  /** Of batches before the first that this start plays nothing is needed; of those behind it, until they have trained. */
  async function open(batch: number): Promise<KeptRollouts> {
    const sweeps = isFirst;
    isFirst = false;
    const kept = await keptRollouts(folder, batch);
    for (const step of sweeps ? await dropPassed(folder, batch) : []) {
      if (records.some((one) => one.type === "step" && one.step === step)) continue;
      warn(
        `Step ${step} ended on the server after this run was cut off: what it trained stays, and it has no record in ${folder}.`,
      );
    }
    return kept;
  }
  /** Plays what does not wait from before a pause, each scenario in its place. */
  return async (
    scenarios: readonly unknown[],
    how: { batch: Batch<unknown>; signal: AbortSignal },
  ): Promise<TrajectoryGroup[]> => {
    const { batch } = how;
    const timeOf = dealt.get(batch) ?? createTimes();
    dealt.set(batch, timeOf);
    const times = scenarios.map(timeOf);
    const kept = watch.waiting(batch.step);
    if (!kept) return await playNow(scenarios, { ...how, times });
    const take = waiting.get(batch) ?? waitingGroups(kept);
    waiting.set(batch, take);
    if (!beside.has(batch)) beside.set(batch, [...watch.waitingAlso(batch.step)]);
    const found = scenarios.map((scenario) => take(scenario) ?? scenario);
    const isGroup = (one: unknown): one is TrajectoryGroup => kept.includes(one as TrajectoryGroup);
    const others = found.filter((one) => !isGroup(one));
    const left = { ...how, times: times.filter((_, at) => !isGroup(found[at])) };
    const fresh = others.length > 0 ? await playNow(others, left) : [];
    return found.map((one) => (isGroup(one) ? one : (fresh.shift() as TrajectoryGroup)));
  };
  async function playNow(
    scenarios: readonly unknown[],
    { batch, signal, times }: { batch: Batch<unknown>; signal: AbortSignal; times: number[] },
  ): Promise<TrajectoryGroup[]> {
    const kept = opened.get(batch) ?? open(batch.step);
    opened.set(batch, kept);
    const so = played.get(batch) ?? { rollouts: 0, failed: 0 };
    played.set(batch, so);
    const what = so.rollouts === 0 ? "playing" : "filling";
    so.rollouts += scenarios.length * groupSize;
    // Of the step: a tenth of a few rollouts that fill it up would be none.
    const maxExceptions = Math.max(0, Math.floor(toleratedFailures * so.rollouts) - so.failed);
    const label = `${labelOf(batch)} ${what}`;
    const also = beside.get(batch) ?? [];
    beside.set(batch, also);
    const how = { label, groupSize, mode: "train", maxExceptions, signal, onEvent, also } as const;
    const dealing = { batch: batch.step, times, kept: await kept };
    const groups = await run.play(model, rollout, scenarios, { ...how, dealt: dealing });
    so.failed += groups.reduce((sum, { exceptions }) => sum + exceptions.length, 0);
    return groups;
  }
}

/** Reasons of a step's failure that lie in no rollout: the server is away, has no room, or was told to end it. */
const elsewhere: ReadonlySet<string> = new Set<ErrorCode>([
  ...(["connection_failed", "timeout", "shutting_down", "worker_unavailable"] as const),
  ...(["renderer_unavailable", "engine_unavailable", "disk_full", "invalid_api_key"] as const),
  // Somebody ended it on the server, which had its reasons; or the server has too much to do.
  ...(["aborted", "model_busy", "too_many_requests", "engine_busy"] as const),
]);

function isElsewhere(error: unknown): boolean {
  return HoneError.isInstance(error) && elsewhere.has(error.code);
}

function labelOf({ trained, steps }: Batch<unknown>): string {
  return `step ${trained + 1}/${steps}`;
}

/**
 * What is told of rollouts that are played beside something else: nothing while that tells of itself, and then where
 * they have come to.
 */
class Stage {
  readonly #onEvent: (event: RunEvent) => void;
  #taken = false;
  /** The newest of each type, told or not: what began before it was taken may go on behind it. */
  #newest: Partial<Record<"began" | "progressed", RunEvent>> = {};

  constructor(onEvent: (event: RunEvent) => void) {
    this.#onEvent = onEvent;
  }

  tell(event: RunEvent): void {
    if (event.type === "began") this.#newest = { began: event };
    if (event.type === "progressed") this.#newest.progressed = event;
    if (!this.#taken) this.#onEvent(event);
  }

  take(): void {
    this.#taken = true;
    if (this.#ended) this.#newest = {};
  }

  leave(): void {
    this.#taken = false;
    for (const event of Object.values(this.#newest)) this.#onEvent(event);
  }

  get #ended(): boolean {
    const { began, progressed } = this.#newest;
    const total = began?.type === "began" ? began.total : 0;
    return progressed?.type === "progressed" && progressed.done >= total;
  }
}
