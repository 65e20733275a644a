import { setImmediate } from "node:timers/promises";
import {
  filtersSchema,
  HoneError,
  refuseUnknownOptions,
  requireNumber,
  requireObject,
  wrongKind,
} from "@hone/core";
import type { ModelInfo, TrajectoryGroup } from "@hone/core";
import { requireFunction, requireSignal } from "../argument-kinds.ts";
import type { Batch } from "./batch.ts";
import { resultOf } from "./batch-run.ts";
import { fillBatch, readFill, type FillCounts, type FillOptions } from "./fill.ts";
import { stalenessOf, staleOf, type Staleness } from "./staleness.ts";

export interface PlayAheadOptions {
  /** How many batches may be played, or have been played, while another one trains. @default 1 */
  ahead?: number | undefined;
  /**
   * How many policies old a rollout may be when its step begins: give `train` the same. The scenario of an older one
   * is played again before that. At least `ahead`. @default 4, as that of `train`
   */
  maxStaleness?: number | undefined;
  /** Draws another scenario for each group whose rewards are all equal, as `fillBatch` does. @default false */
  fill?: boolean | FillOptions | undefined;
  /** Aborting it ends the rollouts that are under way. */
  signal?: AbortSignal | undefined;
}

/** Plays scenarios: `gather`, and a judge where there is one. `signal` aborts when the loop ends before them. */
export type Play<Scenario> = (
  scenarios: readonly Scenario[],
  how: { batch: Batch<Scenario>; signal: AbortSignal },
) => Promise<TrajectoryGroup[]>;

/** A batch whose rollouts are ready to be trained on. */
export interface PlayedBatch<Scenario> {
  batch: Batch<Scenario>;
  groups: TrajectoryGroup[];
  /** What filling it took; null where it was not filled. */
  fill: FillCounts | null;
  overlap: OverlapCounts;
}

/** How playing and training went beside one another. Times are seconds. */
export interface OverlapCounts {
  /** From the batch's first rollout to its last. */
  played: number;
  /** How long the training waited for this batch. */
  waitedForRollouts: number;
  /** How long no rollout could begin, because as many batches as may be were ready. */
  waitedForTraining: number;
  /** How old the rollouts are now that they are to be trained. Null without any. */
  staleness: Staleness | null;
  /** Rollouts that had become too old, so that their scenarios were played again. */
  resampled: number;
}

/** What is read of a model. */
interface Learning {
  info: (options: { signal?: AbortSignal | undefined }) => Promise<ModelInfo>;
}

export const defaultMaxStaleness = filtersSchema.parse({}).maxStaleness;
const mostAhead = 8;
/** How often a batch is played again, until what still makes its rollouts old is an error. */
const mostRounds = 8;

/**
 * Plays the next batch while the loop trains: it gives a batch with its groups, and goes on playing meanwhile. What
 * it gives was sampled at most `ahead` policies ago, because batches are played one after another, and a batch begins
 * when the one so many before it is given. Steps stay in one order, that of the loop.
 *
 * A rollout may get older all the same, if another program trains the model or a publish fails. If it is older than
 * `maxStaleness`, its scenario is played again before the batch is given; what the server has left out of a step as
 * `stale` is played again with the next batch. A program that ends loses what was not trained, and goes on at the
 * scenarios of the first batch that has no step.
 */
export async function* playAhead<Scenario>(
  model: Learning,
  batches: AsyncIterable<Batch<Scenario>>,
  play: Play<Scenario>,
  options: PlayAheadOptions = {},
): AsyncGenerator<PlayedBatch<Scenario>, void, undefined> {
  requireObject("playAhead()", model, "a model, as hone.model() returns it", "model");
  if (typeof (batches as Partial<typeof batches> | null)?.[Symbol.asyncIterator] !== "function") {
    throw wrongKind("playAhead()", "model.batches(…) as batches", batches, "batches");
  }
  requireFunction("playAhead()", play, "play");
  refuseUnknownOptions("playAhead()", options, ["ahead", "maxStaleness", "fill", "signal"]);
  requireSignal("playAhead()", options);
  const { ahead = 1, maxStaleness = defaultMaxStaleness, fill = false } = options;
  requireAhead(ahead, maxStaleness);
  if ((await model.info({ signal: options.signal })).engineSleeps) throw noOneAwake();
  const fillOptions = fill === false ? null : fill === true ? {} : fill;
  if (fillOptions) readFill("playAhead()", fillOptions);

  const ending = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, ending.signal]) : ending.signal;
  const line = new Line(batches, ahead, async (batch) => {
    const began = performance.now();
    const playing = (scenarios: readonly Scenario[]) => play(scenarios, { batch, signal });
    const { groups, fill: counts } = fillOptions
      ? await fillBatch(batch, playing, fillOptions)
      : { groups: await playing(batch.scenarios), fill: null };
    return { batch, groups, fill: counts, played: secondsSince(began) };
  });
  /** Scenarios of rollouts that the server has left out of the last step as stale. */
  let left: { scenario: Scenario; rollouts: number }[] = [];
  const freshen = async (batch: Batch<Scenario>, played: readonly TrajectoryGroup[]) => {
    let groups = [...played];
    let resampled = left.reduce((sum, { rollouts }) => sum + rollouts, 0);
    let again = left.map(({ scenario }) => scenario);
    left = [];
    for (let round = 0; ; round += 1) {
      if (again.length > 0) groups.push(...(await play(again, { batch, signal })));
      const { learnt } = await model.info({ signal });
      const old = groups.filter((group) => staleOf(group, { learnt, maxStaleness }).length > 0);
      if (old.length === 0) return { groups, resampled, staleness: stalenessOf(groups, learnt) };
      if (round === mostRounds) throw tooOld(learnt, maxStaleness);
      for (const group of old) resampled += staleOf(group, { learnt, maxStaleness }).length;
      again = old.map(({ scenario }) => scenario as Scenario);
      groups = groups.filter((group) => !old.includes(group));
    }
  };

  line.begin();
  try {
    for (;;) {
      const asked = performance.now();
      const next = await line.next();
      if (!next) return;
      const { batch, fill: counts, played } = next;
      // Before the next batch begins: what is played again has the engine for itself.
      const { groups, resampled, staleness } = await freshen(batch, next.groups);
      const waitedForTraining = line.take();
      const waitedForRollouts = secondsSince(asked);
      const overlap = { played, waitedForRollouts, waitedForTraining, staleness, resampled };
      yield { batch, groups, fill: counts, overlap };
      line.finish();
      left = await staleIn(batch, groups);
    }
  } finally {
    ending.abort(new HoneError("The loop over playAhead() has ended.", { code: "aborted" }));
    await line.end();
  }
}

/** What the step of this batch has left out as stale, if the step has ended. */
async function staleIn<Scenario>(batch: Batch<Scenario>, groups: readonly TrajectoryGroup[]) {
  const step = resultOf(batch.cursor);
  // A loop need not wait for its steps: of one that is under way nothing is known yet.
  const result = step && (await Promise.race([step, setImmediate(null)]));
  const byId = new Map(groups.map((group) => [group.id, group.scenario as Scenario]));
  return (result?.groups ?? []).flatMap(({ id, dropped }) => {
    const scenario = byId.get(id);
    const { stale: rollouts = 0 } = dropped;
    return rollouts > 0 && scenario !== undefined ? [{ scenario, rollouts }] : [];
  });
}

/** Batches that are played one after another, as far ahead of those that were taken as may be. */
class Line<Scenario, Played> {
  readonly #batches: AsyncIterator<Batch<Scenario>>;
  readonly #ahead: number;
  readonly #play: (batch: Batch<Scenario>) => Promise<Played>;
  readonly #ready: Played[] = [];
  /** Batches that were dealt out, given to the loop, and done with by it. */
  #dealt = 0;
  #taken = 0;
  #finished = 0;
  #last: Batch<Scenario> | null = null;
  #idleSince: number | null = null;
  #end: { error?: unknown } | null = null;
  #working: Promise<void> = Promise.resolve();
  readonly #waiting = new Set<() => void>();

  constructor(
    batches: AsyncIterable<Batch<Scenario>>,
    ahead: number,
    play: (batch: Batch<Scenario>) => Promise<Played>,
  ) {
    this.#batches = batches[Symbol.asyncIterator]();
    this.#ahead = ahead;
    this.#play = play;
  }

  begin(): void {
    this.#working = this.#work().then(
      () => this.#close({}),
      (error: unknown) => this.#close({ error }),
    );
  }

  /** The next batch that was played; null after the last one. */
  async next(): Promise<Played | null> {
    for (;;) {
      const played = this.#ready[0];
      if (played) return played;
      if (this.#end) {
        if ("error" in this.#end) throw this.#end.error;
        return null;
      }
      await this.#change();
    }
  }

  /** Makes room for another batch. Gives the seconds that there was none. */
  take(): number {
    const waited = this.#idleSince === null ? 0 : secondsSince(this.#idleSince);
    this.#ready.shift();
    this.#taken += 1;
    this.#wake();
    return waited;
  }

  finish(): void {
    this.#finished += 1;
    this.#wake();
  }

  async end(): Promise<void> {
    this.#close({});
    await this.#working;
    await this.#batches.return?.();
  }

  async #work(): Promise<void> {
    for (;;) {
      while (!this.#end && !this.#mayDeal()) await this.#change();
      this.#idleSince = null;
      if (this.#end) return;
      const next = await this.#batches.next();
      if (next.done) return;
      this.#dealt += 1;
      this.#last = next.value;
      this.#ready.push(await this.#play(next.value));
      if (this.#dealt - this.#taken >= this.#ahead) this.#idleSince = performance.now();
      this.#wake();
    }
  }

  #mayDeal(): boolean {
    if (this.#dealt - this.#taken >= this.#ahead) return false;
    // It may be the run's last one: whether there is another depends on what became of all before.
    const mayBeLast = this.#last !== null && this.#last.cursor.trained >= this.#last.steps;
    return !mayBeLast || this.#finished === this.#dealt;
  }

  #close(end: { error?: unknown }): void {
    this.#end ??= end;
    this.#wake();
  }

  async #change(): Promise<void> {
    await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** What was sampled `ahead` policies ago has to be allowed to train. */
export function requireAhead(ahead: number, maxStaleness: number): void {
  requireNumber("ahead", ahead, { whole: true, least: 1, most: mostAhead });
  requireNumber("maxStaleness", maxStaleness, { whole: true, least: 0 });
  if (ahead <= maxStaleness) return;
  throw new HoneError(
    `Rollouts that are played ${ahead} ${ahead === 1 ? "batch" : "batches"} ahead are up to ${ahead} policies old, and maxStaleness is ${maxStaleness}. Give maxStaleness ${ahead} or more, or play without overlap.`,
    { code: "invalid_config", param: "maxStaleness" },
  );
}

function noOneAwake(): HoneError {
  return new HoneError(
    "This server's vLLM sleeps while a step trains (serve --sleep), so nothing can be played meanwhile. Play without overlap, or start the server without --sleep.",
    { code: "invalid_config", param: "overlap" },
  );
}

function tooOld(learnt: number, maxStaleness: number): HoneError {
  return new HoneError(
    `A batch was played ${mostRounds + 1} times, and its rollouts are still more than ${maxStaleness} policies older than ${learnt}, the newest that was learnt: another program trains the same model, or the newest policy is not served. Give each program a model of its own, and see what the server says of publishing.`,
    { code: "step_mismatch", param: "maxStaleness" },
  );
}

function secondsSince(began: number): number {
  return (performance.now() - began) / 1000;
}
