import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { HoneError } from "@hone/core";
import type { RolloutMode, TrajectoryGroup } from "@hone/core";
import { valueOf } from "../evaluation/scores.ts";
import { Hone } from "../hone.ts";
import type { Model } from "../model.ts";
import type { ComparisonModel } from "../rollouts/comparison-model.ts";
import { gather, type GatherEvent } from "../rollouts/gather.ts";
import type { Policy } from "../rollouts/policy.ts";
import { readOutcome } from "../rollouts/rollout-outcome.ts";
import type { Rollout } from "../rollouts/rollout-run.ts";
import { openRunLog, requireSameSettings, type RunLog } from "../run-log/run-log.ts";
import type { Batch } from "../training/batch.ts";
import { shuffleRewards } from "../training/control.ts";
import { fillBatch } from "../training/fill.ts";
import { readGroups } from "../training/group-files.ts";
import { checkOthers, playOthers, type OthersPlayed, type OtherModel } from "./other-models.ts";
import type { RunEvent } from "./run-event.ts";
import { requireWritable } from "./run-folders.ts";
import { readSettings, requireEnough, type RunOptions, type RunSettings } from "./run-options.ts";
import { canBeJudged, judge, requireScores, type Evaluated, type RunSummary } from "./summary.ts";
import { readOwnSettings, requireTask, type Task, type TaskSettings } from "./task.ts";
import { fingerprintOf, taskChanges } from "./task-fingerprint.ts";
import { openTotals, type RunTotals } from "./totals.ts";

/**
 * Trains a model on a task from start to verdict: evaluates the base, trains the steps, evaluates the trained
 * policy on the same held-out scenarios, and other models too where there are any. Started again with the same
 * name and folder it goes on where it was cut off; a folder whose task or settings were others is refused.
 */
export async function trainRun<Scenario, Settings extends TaskSettings>(
  task: Task<Scenario, Settings>,
  options: RunOptions<Settings>,
): Promise<RunSummary> {
  requireTask("trainRun()", task);
  const settings = readSettings(task, options);
  requireEnough(settings.heldOut, options.ungated);
  const { name, compare: others = [] } = options;
  const { signal = new AbortController().signal, onEvent = () => {} } = options;
  const out = resolve(options.out ?? join("runs", name));
  const own = readOwnSettings(task, options.settings);
  const { heldOut: alsoDrawn = [], ...curves } = task.curves?.(own) ?? {};
  const playing = { task: task as unknown as Task<unknown>, settings, own };
  const hone = options.hone ?? new Hone();
  // Until all this has passed nothing is written, neither here nor on the server.
  await requireWritable(out);
  const kept = settingsToKeep(playing, options);
  const begun = await requireSameTask(out, () => requireSameSettings(out, kept));
  // In a run that goes on, a model that fails is left out, and the summary says so.
  if (!begun) await checkOthers(others, rolloutOfOthers(playing), task.heldOut[0], signal);
  const model = await hone.model({ name, seed: settings.seed }, { signal });
  const { maxModelLen, base } = await model.info({ signal });
  const log = await requireSameTask(out, () =>
    openRunLog(out, { ...curves, settings: { ...kept, base } }),
  );
  onEvent({ type: "started", out });
  const totals = await openTotals(join(out, "totals.json"));
  const metrics = [...new Set([task.metric ?? "reward", "reward", ...alsoDrawn])];
  const context = { ...playing, contextTokens: maxModelLen, metrics };
  const run = createRun({ ...context, log, totals, onEvent, signal });
  try {
    const looks = looksOf(settings);
    const before: TrajectoryGroup[][] = [];
    for (const { suffix, temperature } of looks) {
      const rollout = run.rolloutAt(temperature);
      const groups = await run.evaluateOnce(model.at(0), `base${suffix}`, rollout);
      requireScores(groups, task.metric ?? "reward");
      before.push(groups);
    }
    await warmUp(model, run);
    await trainSteps(model, run, options.shuffleRewards ?? false);
    const evaluated: Evaluated[] = [];
    for (const [at, { suffix, temperature }] of looks.entries()) {
      const names = [`base${suffix}`, `trained${suffix}`] as const;
      const trained = await run.evaluate(model, names[1], run.rolloutAt(temperature));
      evaluated.push({ names, base: before[at] ?? [], trained });
    }
    const adapter = await model.checkpoint({ signal });
    const conclude = async (played: OthersPlayed): Promise<RunSummary> => {
      const [deciding, ...beside] = evaluated as [Evaluated, ...Evaluated[]];
      const { metric = "reward", slice } = task;
      const judged = { metric, slice, others: played.evaluations };
      const summary: RunSummary = {
        policy: deciding.trained.flatMap(({ trajectories }) => trajectories)[0]?.policy ?? name,
        ...{ steps: settings.steps, seed: settings.seed },
        ...judge({ ...judged, evaluated: [deciding, ...beside] }),
        notCompared: played.failures,
        references: curves.references?.[metric] ?? {},
        curves: log.lines(),
        ...totals.soFar(),
        ...{ out, adapter },
      };
      await writeFile(join(out, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
      return summary;
    };
    // The verdict is written down before other models play: whatever becomes of them, it stands.
    const verdict = await conclude({ evaluations: {}, failures: {} });
    if (others.length === 0) return verdict;
    return await conclude(await playOthers(others, (other) => run.evaluateOther(other), signal));
  } finally {
    await totals.save();
    onEvent({ type: "ended" });
  }
}

/** The share of the rollouts that may fail. */
const toleratedFailures = 0.1;

/** How held-out scenarios are answered; the first one decides. */
function looksOf(settings: RunSettings) {
  const { verdict, temperature } = settings;
  if (verdict === "sampled") return [{ suffix: "", temperature }];
  return [
    { suffix: " greedy", temperature: decidingTemperature(settings) },
    { suffix: " sampled", temperature },
  ];
}

function decidingTemperature({ verdict, temperature }: RunSettings): number {
  return verdict === "greedy" ? 0 : temperature;
}

type Run = ReturnType<typeof createRun>;

/** What the scores of a run depend on, apart from the base, which only the server knows. */
function settingsToKeep({ task, settings, own }: Playing, options: RunOptions<TaskSettings>) {
  const { seed, temperature, answerTokens, verdict } = settings;
  return {
    ...fingerprintOf(task, options.taskSource),
    ...own,
    ...{ name: options.name, seed, temperature, answerTokens, verdict },
    shuffleRewards: options.shuffleRewards ?? false,
  };
}

/** The scores of a run that has begun are of its task: with another one they mean nothing. */
async function requireSameTask<Result>(
  out: string,
  compare: () => Promise<Result>,
): Promise<Result> {
  try {
    return await compare();
  } catch (error) {
    const changed = HoneError.isInstance(error) && taskChanges[error.param ?? ""];
    if (!changed) throw error;
    throw new HoneError(
      `The task has changed since the run in ${out} began: ${changed}. Its stored scores are of the earlier task. Put that back, or begin another run.`,
      { code: "invalid_config", param: "task", cause: error },
    );
  }
}

/** Another model may think long before each of a hundred turns, and its answers cost money: none is asked for twice. */
const patient = { timeoutMs: 12 * 3_600_000, retries: 0 };

/** What decides how a scenario is played. */
interface Playing {
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
function rolloutOfOthers({ task, settings, own }: Playing) {
  return ({ answerTokens = settings.answerTokens }: OtherModel): Rollout<unknown> =>
    async (model, scenario) => {
      const how = { temperature: decidingTemperature(settings), contextTokens: null, answerTokens };
      const result = await task.rollout(model, scenario, { ...how, settings: own });
      const { metadata, ...outcome } = readOutcome(result);
      return { ...outcome, metadata: { ...metadata, answerTokens } };
    };
}

function createRun(context: RunContext) {
  const { task, settings, log, totals, onEvent, signal } = context;
  const { metric = "reward" } = task;
  const heldOut = task.heldOut.slice(0, settings.heldOut);

  const rolloutAt =
    (temperature: number): Rollout<unknown> =>
    (model, scenario) => {
      const { own, contextTokens } = context;
      const { answerTokens } = settings;
      return task.rollout(model, scenario, {
        temperature,
        answerTokens,
        contextTokens,
        settings: own,
      });
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
    },
  ): Promise<TrajectoryGroup[]> {
    const { label, mode, ...limits } = how;
    onEvent({ type: "began", label, total: scenarios.length * how.groupSize });
    const groups = await totals.time(mode === "train" ? "playing" : "evaluating", () =>
      gather(policy, rollout, scenarios, {
        ...{ retries: 1, maxExceptions: toleratedFailures, ...limits, mode, signal },
        concurrency: settings.concurrency,
        onProgress: (event) =>
          onEvent({ type: "progressed", done: event.done, note: noteOf(event, metric) }),
      }),
    );
    const turns = groups.flatMap(({ trajectories }) => trajectories.map(({ usage }) => usage));
    totals.addTurns(turns.reduce((sum, { completions }) => sum + completions, 0));
    const { score } = task;
    return score
      ? await totals.time("scoring", async () => score(groups, { mode, signal }))
      : groups;
  }

  async function evaluate(
    policy: Policy | ComparisonModel,
    label: string,
    rollout: Rollout<unknown>,
    how: { scenarios?: readonly unknown[]; timeoutMs?: number; retries?: number } = {},
  ): Promise<TrajectoryGroup[]> {
    const { scenarios = heldOut, ...limits } = how;
    const began = performance.now();
    const eager = { label: `evaluating ${label}`, groupSize: 1, mode: "eval", ...limits } as const;
    const groups = await play(policy, rollout, scenarios, eager);
    const [record] = await log.evaluation(label, groups, { metrics: context.metrics });
    await totals.save();
    const seconds = (performance.now() - began) / 1000;
    onEvent({ type: "evaluated", label, metric, score: record?.score?.mean ?? null, seconds });
    return groups;
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
    /** Evaluates, unless an earlier start of this run has done so and a verdict can be made of it. */
    async evaluateOnce(policy: Policy, label: string, rollout: Rollout<unknown>) {
      const groups = await made(label);
      if (groups && canBeJudged(groups, metric)) return groups;
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

async function warmUp(model: Model, run: Run): Promise<void> {
  const { task, own, settings, totals, onEvent, signal } = run.context;
  if (!task.warmUp) return;
  onEvent({ type: "began", label: "warming up", total: 1 });
  const how = { settings: own, seed: settings.seed, signal };
  const trained = await totals.time("warming up", async () => task.warmUp?.(model, how));
  if (trained === false) return;
  await run.evaluateOnce(model, "warmed up", run.rolloutAt(decidingTemperature(settings)));
}

async function trainSteps(model: Model, run: Run, shuffled: boolean): Promise<void> {
  const { task, settings, log, totals, onEvent, signal } = run.context;
  const { groupsPerStep, steps, seed, curriculum, evalEvery, evalHeldOut } = settings;
  const { shuffle, heldOut } = task;
  const plan = { groupsPerStep, steps, seed, shuffle, heldOut, curriculum, signal };
  for await (const batch of model.batches(task.train, plan)) {
    const label = `step ${batch.trained + 1}/${steps}`;
    const step = log.step(batch);
    const { groups: played, fill } = await playBatch(model, run, batch, label);
    const groups = step.gathered(
      shuffled ? shuffleRewards(played, seed * 1_000_003 + batch.step) : played,
      fill,
    );
    onEvent({ type: "began", label: `${label} training`, total: 1 });
    const { learningRate, schedule } = settings;
    const result = await totals.time("training", () =>
      model.train(groups, {
        ...{ ...settings.train, learningRate, schedule, batch, signal },
        onEvent: (event) => {
          step.onEvent(event);
          totals.onEvent(event);
          if (event.type !== "progress") return;
          onEvent({ type: "progressed", done: event.done / event.total, note: "" });
        },
      }),
    );
    const record = await step.trained(result);
    await totals.save();
    const done = batch.trained + (result.trained ? 1 : 0);
    const { metric = "reward" } = task;
    onEvent({ type: "step-ended", step: done, steps, metric, record, result });
    if (!result.trained || evalEvery === 0 || done % evalEvery > 0 || done === steps) continue;
    const scenarios = run.heldOut.slice(0, evalHeldOut);
    const rollout = run.rolloutAt(decidingTemperature(settings));
    await run.evaluate(model, `step-${done}`, rollout, { scenarios });
  }
}

/** Plays the scenarios of a step, and with `fill` further ones for groups that teach nothing. */
async function playBatch(model: Model, run: Run, batch: Batch<unknown>, label: string) {
  const { groupSize, temperature, fill } = run.context.settings;
  const rollout = run.rolloutAt(temperature);
  let rollouts = 0;
  let failed = 0;
  const play = async (scenarios: readonly unknown[]): Promise<TrajectoryGroup[]> => {
    const what = rollouts === 0 ? "playing" : "filling";
    rollouts += scenarios.length * groupSize;
    // Of the step: a tenth of a few rollouts that fill it up would be none.
    const maxExceptions = Math.max(0, Math.floor(toleratedFailures * rollouts) - failed);
    const how = { label: `${label} ${what}`, groupSize, mode: "train", maxExceptions } as const;
    const groups = await run.play(model, rollout, scenarios, how);
    failed += groups.reduce((sum, { exceptions }) => sum + exceptions.length, 0);
    return groups;
  };
  if (fill === false) return { groups: await play(batch.scenarios), fill: null };
  return await fillBatch(batch, play, fill === true ? {} : fill);
}

function noteOf(event: GatherEvent, metric: string): string {
  if (event.type !== "rollout-finished") return event.exception.message;
  const [value = "none yet"] = valueOf(event.trajectory, metric);
  return `${metric} ${value}`;
}
