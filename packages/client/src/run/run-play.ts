import { setMaxListeners } from "node:events";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import type { RolloutMode, TrajectoryGroup } from "@hone/core";
import { valueOf } from "../evaluation/scores.ts";
import { ComparisonModel } from "../rollouts/comparison-model.ts";
import { gather, type GatherEvent } from "../rollouts/gather.ts";
import type { Policy } from "../rollouts/policy.ts";
import { readOutcome } from "../rollouts/rollout-outcome.ts";
import type { Rollout } from "../rollouts/rollout-run.ts";
import type { RunLog } from "../run-log/run-log.ts";
import { readGroups } from "../training/group-files.ts";
import { askHeldOutJudge, askWins } from "./held-out-judge.ts";
import { judgedGroups, judgeIsDown, judgeWaits } from "./judging.ts";
import type { OtherModel } from "./other-models.ts";
import type { RunEvent } from "./run-event.ts";
import type { RunSettings } from "./run-options.ts";
import { canBeJudged } from "./summary.ts";
import type { Task, TaskSettings } from "./task.ts";
import { createTimes, judgingSeed, rolloutSeed, type KeptRollouts } from "./playing.ts";
import { rolloutWith, type SeededPlace } from "./task-rollout.ts";
import type { RunTotals, Taken } from "./totals.ts";

/** The share of the rollouts that may fail. */
export const toleratedFailures = 0.1;

export function decidingTemperature({ verdict, temperature }: RunSettings): number {
  return verdict === "greedy" ? 0 : temperature;
}

export type Run = ReturnType<typeof createRun>;

/** Another model may think long before each of a hundred turns, and its answers cost money: none is asked for twice. */
const patient = { timeoutMs: 12 * 3_600_000, retries: 0 };

/** What decides how a scenario is played. */
export interface Playing {
  task: Task<unknown>;
  settings: RunSettings;
  /** Values of the task's own settings. */
  own: TaskSettings;
}

interface RunContext extends Playing {
  contextTokens: number;
  /** Those whose held-out scores are written down. The first one decides. */
  metrics: readonly string[];
  log: RunLog;
  totals: RunTotals;
  onEvent: (event: RunEvent) => void;
  signal: AbortSignal;
}

/** Other models' conversations end as they end: how much of them fits is for their own API to say. */
export function rolloutOfOthers({ task, settings, own }: Playing) {
  return ({ answerTokens = settings.answerTokens }: OtherModel): Rollout<unknown> =>
    async (model, scenario) => {
      const temperature = decidingTemperature(settings);
      const how = { temperature, contextTokens: null, seed: null, answerTokens };
      const result = await task.rollout(model, scenario, { ...how, settings: own });
      const { metadata, ...outcome } = readOutcome(result);
      return { ...outcome, metadata: { ...metadata, answerTokens } };
    };
}

export function createRun(context: RunContext) {
  const { task, settings, log, totals, onEvent, signal } = context;
  const { metric = "reward" } = task;
  const heldOut = task.heldOut.slice(0, settings.heldOut);

  /** Whether a batch of this start has been judged. */
  let hasJudged = false;

  const rolloutAt = (temperature: number): Rollout<unknown> => {
    const { own, contextTokens } = context;
    const { answerTokens } = settings;
    return rolloutWith(task, { temperature, answerTokens, contextTokens, settings: own });
  };

  async function play(
    policy: Policy | ComparisonModel,
    rollout: Rollout<unknown>,
    scenarios: readonly unknown[],
    how: {
      label: string;
      groupSize: number;
      mode: RolloutMode;
      timeoutMs?: number;
      retries?: number;
      maxExceptions?: number;
      /** @default the run's */
      signal?: AbortSignal;
      /** @default the run's */
      onEvent?: (event: RunEvent) => void;
      /** Hears of each cost, in dollars: with overlap, others are paid at the same time. */
      onCost?: (usd: number) => void;
      /** Where groups go that `score` wants trained as well. */
      also?: TrajectoryGroup[];
      /** The batch, and how often it has played each of the scenarios before. @default an evaluation */
      dealt?: { batch: number; times: readonly number[]; kept: KeptRollouts };
    },
  ): Promise<TrajectoryGroup[]> {
    const { label, mode, also, dealt, onCost, ...others } = how;
    const { onEvent: tell = onEvent, signal: ending = signal, ...limits } = others;
    tell({ type: "began", label, total: scenarios.length * how.groupSize });
    const times = dealt?.times ?? scenarios.map(createTimes());
    const playing = ({ group, member }: { group: number; member: number }) => {
      return { scenario: scenarios[group], time: times[group] ?? 0, member };
    };
    const of = dealt?.batch ?? "evaluation";
    const seeded: Rollout<unknown> = (model, scenario, place) => {
      const failures = dealt?.kept.failures;
      const again = { attempt: place.attempt, failures };
      const seed = rolloutSeed(settings.seed, of, playing(place), again);
      return rollout(model, scenario, { ...place, seed } as SeededPlace);
    };
    const groups = await totals.time(mode === "train" ? "playing" : "evaluating", () =>
      gather(policy, seeded, scenarios, {
        ...{ retries: 1, maxExceptions: toleratedFailures, ...limits, mode, signal: ending },
        concurrency: settings.concurrency,
        finished: (place) => dealt?.kept.find(playing(place)),
        onProgress(event) {
          if (event.type === "rollout-finished" && !event.known) {
            const usd = totals.addPlayed([event.trajectory]);
            onCost?.(usd);
            dealt?.kept.keep(playing(event.place), event.trajectory);
            // The next start takes it from there, and does not count it again.
            totals.saveSoon();
          }
          tell({ type: "progressed", done: event.done, note: noteOf(event, metric) });
        },
      }),
    );
    const { score } = task;
    if (!score) return groups;
    const { concurrency } = settings;
    const shown = scenarios.map((_, group) => playing({ group, member: 0 }));
    const seedNow = () => judgingSeed(settings.seed, of, shown, dealt?.kept ?? {});
    // A judge listens to it in each request that waits.
    setMaxListeners(0, ending);
    const judged = async () => {
      // What a judge wanted trained that failed otherwise is not trained twice.
      const more: TrajectoryGroup[] | undefined = also && [];
      const alsoTrain = (these: readonly TrajectoryGroup[]) => keepToTrain(more, these);
      const scored = await totals.time("scoring", async () =>
        score(groups, { mode, policy, concurrency, alsoTrain, seed: seedNow(), signal: ending }),
      );
      if (judgeIsDown(scored) !== null) dealt?.kept.noteJudgeFailure();
      for (const { metrics } of scored) {
        const usd = metrics["ruler/cost_usd"] ?? 0;
        totals.addUsd(usd);
        onCost?.(usd);
      }
      return { groups: scored, more };
    };
    // An evaluation's rollouts are not kept, and whether it can do without scores its verdict says.
    const waits = hasJudged ? judgeWaits.before : judgeWaits.never;
    const scored = dealt
      ? await judgedGroups(judged, { label, waits, signal: ending })
      : await judged();
    hasJudged ||= dealt !== undefined;
    also?.push(...(scored.more ?? []));
    return scored.groups;
  }

  async function evaluate(
    policy: Policy | ComparisonModel,
    label: string,
    rollout: Rollout<unknown>,
    how: {
      scenarios?: readonly unknown[];
      timeoutMs?: number;
      retries?: number;
      /** Answers that are asked whether these are better than. */
      baseline?: readonly TrajectoryGroup[];
    } = {},
  ): Promise<TrajectoryGroup[]> {
    const { scenarios = heldOut, baseline, ...limits } = how;
    const began = performance.now();
    let usd = 0;
    const onCost = (paid: number) => void (usd += paid);
    const eager = { label: `evaluating ${label}`, groupSize: 1, mode: "eval", ...limits } as const;
    const played = await play(policy, rollout, scenarios, { ...eager, onCost });
    const groups = await asked(played, baseline, onCost);
    const [record] = await log.evaluation(label, groups, { metrics: context.metrics });
    const seconds = (performance.now() - began) / 1000;
    if (!(policy instanceof ComparisonModel)) {
      // With its judges: the last evaluation is going to take as much for each rollout.
      totals.addEvaluation(groups.length, { seconds, usd });
    }
    await totals.save();
    onEvent({ type: "evaluated", label, metric, score: record?.score?.mean ?? null, seconds });
    return groups;
  }

  /** What judges that never train say of held-out answers. */
  async function asked(
    groups: TrajectoryGroup[],
    baseline: readonly TrajectoryGroup[] | undefined,
    onCost: (usd: number) => void,
  ): Promise<TrajectoryGroup[]> {
    const { heldOutJudge, prefer } = task;
    const how = {
      concurrency: settings.concurrency,
      signal,
      onCost(usd: number) {
        totals.addUsd(usd);
        onCost(usd);
      },
    };
    const judged = heldOutJudge
      ? await totals.time("held-out judge", () =>
          askHeldOutJudge(heldOutJudge, groups, { ...how, seed: null }),
        )
      : groups;
    if (!prefer || !baseline || settings.goals.winRate === undefined) return judged;
    return await totals.time("held-out judge", () => askWins(prefer, judged, baseline, how));
  }

  /** The rollouts of an evaluation that an earlier start of this run has made; null where there is none. */
  async function made(label: string): Promise<TrajectoryGroup[] | null> {
    const record = log.records.findLast((one) => one.type === "evaluation" && one.label === label);
    if (record?.type !== "evaluation" || record.file === undefined) return null;
    const groups = await readGroups(join(log.folder, "trajectories", record.file));
    return groups.length >= heldOut.length ? groups.slice(0, heldOut.length) : null;
  }

  return {
    ...{ context, heldOut, rolloutAt, play, evaluate },
    /** How greedy evaluations are answered, or sampled ones where these decide. */
    decidingRollout: () => rolloutAt(decidingTemperature(settings)),
    /** Evaluates, unless an earlier start of this run has done so and a verdict can be made of it. */
    async evaluateOnce(
      policy: Policy,
      label: string,
      rollout: Rollout<unknown>,
      { again = false }: { again?: boolean } = {},
    ) {
      const groups = again ? null : await made(label);
      if (groups && canBeJudged(groups, metric)) {
        // An older version kept no price of it, and the verdict's is read off it.
        if (totals.soFar().evaluated.rollouts === 0) totals.addEvaluation(...priceOf(groups));
        return groups;
      }
      return await evaluate(policy, label, rollout);
    },
    async evaluateOther(other: OtherModel): Promise<TrajectoryGroup[]> {
      const { label, model, answerTokens = settings.answerTokens } = other;
      const groups = await made(label);
      // A model that had too little room for its answers answers again with more.
      const same = groups?.every(({ trajectories }) =>
        trajectories.every(({ metadata }) => metadata["answerTokens"] === answerTokens),
      );
      if (groups && same) return groups;
      return await evaluate(model, label, rolloutOfOthers(context)(other), patient);
    },
  };
}

function keepToTrain(also: TrajectoryGroup[] | undefined, more: readonly TrajectoryGroup[]): void {
  if (also) {
    also.push(...more);
    return;
  }
  throw new HoneError("score(): an evaluation trains nothing. Call alsoTrain in mode train only.", {
    code: "invalid_config",
    param: "score",
  });
}

/** What stored rollouts took, as far as they say: how many, from the first one's begin to the last one's end. */
function priceOf(groups: readonly TrajectoryGroup[]): [rollouts: number, taken: Taken] {
  const played = groups.flatMap(({ trajectories }) => trajectories);
  const begins = played.map(({ startedAt }) => startedAt);
  const ends = played.map(({ startedAt, durationMs }) => startedAt + durationMs);
  const costs = [
    ...groups.map(({ metrics }) => metrics["ruler/cost_usd"] ?? 0),
    ...played.map(({ metrics }) => metrics["cost_usd"] ?? 0),
  ];
  const usd = costs.reduce((sum, one) => sum + one, 0);
  return [groups.length, { seconds: (Math.max(...ends) - Math.min(...begins)) / 1000, usd }];
}

function noteOf(event: GatherEvent, metric: string): string {
  if (event.type !== "rollout-finished") return event.exception.message;
  const [value = "none yet"] = valueOf(event.trajectory, metric);
  return `${metric} ${value}`;
}
