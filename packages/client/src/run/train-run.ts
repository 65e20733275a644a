import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { HoneError } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { ServerWait, Transport } from "@hone/transport";
import {
  optionalBoolean,
  optionalFunction,
  requireSignal,
  requireText,
} from "../argument-kinds.ts";
import { Hone, requireHone } from "../hone.ts";
import { Model } from "../model.ts";
import { openRunLog, requireSameSettings } from "../run-log/run-log.ts";
import { trainedSteps } from "../training/batches.ts";
import { checkOthers, playOthers, requireOthers, type OthersPlayed } from "./other-models.ts";
import { heldOutMetric } from "../stopping/step-figures.ts";
import { endPause, hasTrained, leavePause, readPaused } from "./paused-run.ts";
import { dropKept } from "./playing.ts";
import { requireWritable } from "./run-folders.ts";
import { readSettings, requireEnough, type RunOptions, type RunSettings } from "./run-options.ts";
import { createRun, decidingTemperature, rolloutOfOthers } from "./run-play.ts";
import type { Playing, Run } from "./run-play.ts";
import { createWatch } from "./run-watch.ts";
import {
  judge,
  ofUntrained,
  requireScores,
  untrainedReasons,
  type Evaluated,
  type RunSummary,
} from "./summary.ts";
import { readOwnSettings, requireTask, type Task, type TaskSettings } from "./task.ts";
import { fingerprintOf, taskChanges } from "./task-fingerprint.ts";
import { acceptedChange, writeAccepted } from "./task-change.ts";
import { openTotals } from "./totals.ts";
import { addWatchRecord, baseIsStale, readWatchLog } from "./watch-log.ts";
import { trainSteps } from "./train-steps.ts";
import { warn } from "../warn.ts";

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
  requireText("trainRun()", options.name, "name");
  if (options.out !== undefined) requireText("trainRun()", options.out, "out");
  requireSignal("trainRun()", { signal: options.signal });
  optionalFunction("trainRun()", options.onEvent, "onEvent");
  for (const param of ["shuffleRewards", "ungated", "acceptChange"] as const) {
    optionalBoolean("trainRun()", options[param], param);
  }
  if (options.hone !== undefined) requireHone("trainRun()", options.hone);
  requireOthers("trainRun()", options.compare ?? []);
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
  const found = await readPaused(out);
  const over = found !== null && (await hasTrained(hone, name, found, signal));
  const paused = over ? null : found;
  const changed = await acceptedChange(out, { kept, paused, accept: options.acceptChange });
  const begun = await requireSameTask(out, () =>
    requireSameSettings(out, { ...kept, ...changed?.from }),
  );
  // In a run that goes on, a model that fails is left out, and the summary says so.
  if (!begun) await checkOthers(others, rolloutOfOthers(playing), task.heldOut[0], signal);
  const made = await hone.model({ name, seed: settings.seed }, { signal });
  const { maxModelLen, base, learnt: begunAt } = await made.info({ signal });
  // Not before: of a URL that is wrong a start says so at once.
  const runEnds = new AbortController();
  const waits = AbortSignal.any([signal, runEnds.signal]);
  const transport = waitingTransport(made.transport, settings.serverWaitMs, waits);
  const model = new Model(transport, name, begunAt);
  if (changed && paused) await writeAccepted(out, changed, paused);
  const log = await requireSameTask(out, () =>
    openRunLog(out, { ...curves, settings: { ...kept, base } }),
  );
  onEvent({ type: "started", out });
  const totals = await openTotals(join(out, "totals.json"));
  const metrics = [
    ...new Set([
      ...[task.metric ?? "reward", "reward", ...alsoDrawn],
      ...(task.heldOutJudge ? [heldOutMetric] : []),
    ]),
  ];
  const context = { ...playing, contextTokens: maxModelLen, metrics };
  const run = createRun({ ...context, log, totals, onEvent, signal });
  if (paused) await addWatchRecord(out, { type: "resumed", step: paused.batch + 1 });
  const earlier = await readWatchLog(out);
  const watch = await createWatch({
    ...{ task: playing.task, settings, out, log, totals, onEvent, signal, earlier },
    // With another reward the batch is played again.
    paused: changed ? null : paused,
  });
  if (over) await leavePause(out, found);
  if (changed && paused) await endPause(out, paused);
  if (changed) await dropKept(out);
  try {
    const looks = looksOf(settings);
    const before: TrajectoryGroup[][] = [];
    const again = baseIsStale(earlier);
    for (const { suffix, temperature } of looks) {
      const rollout = run.rolloutAt(temperature);
      const groups = await run.evaluateOnce(model.at(0), `base${suffix}`, rollout, { again });
      requireScores(groups, task.metric ?? "reward");
      before.push(groups);
    }
    if (again) await addWatchRecord(out, { type: "base-evaluated" });
    await warmUp(model, run);
    const shuffled = options.shuffleRewards ?? false;
    await trainSteps(model, run, { shuffled, watch, baseline: before[0] ?? [] });
    const evaluated: Evaluated[] = [];
    for (const [at, { suffix, temperature }] of looks.entries()) {
      const names = [`base${suffix}`, `trained${suffix}`] as const;
      const trained = await run.evaluate(model, names[1], run.rolloutAt(temperature));
      if (at === 0) watch.finished(trained);
      evaluated.push({ names, base: before[at] ?? [], trained });
    }
    const adapter = await model.checkpoint({ signal });
    const { cursor, learnt } = await model.info({ signal });
    const trained = trainedSteps(cursor);
    const conclude = async (played: OthersPlayed): Promise<RunSummary> => {
      const [deciding, ...beside] = evaluated as [Evaluated, ...Evaluated[]];
      const { metric = "reward", slice } = task;
      const judged = { metric, slice, others: played.evaluations };
      const comparison = judge({ ...judged, evaluated: [deciding, ...beside] });
      const summary: RunSummary = {
        policy: deciding.trained.flatMap(({ trajectories }) => trajectories)[0]?.policy ?? name,
        ...{ steps: settings.steps, trained, seed: settings.seed },
        untrained: trained < settings.steps ? untrainedReasons(log.records) : {},
        ...(learnt === 0 && settings.steps > 0 ? ofUntrained(comparison) : comparison),
        notCompared: played.failures,
        references: curves.references?.[metric] ?? {},
        curves: log.lines(),
        ...totals.soFar(),
        watch: watch.summary(),
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
    // Nobody waits for the server any more, a lease that was to be renewed neither.
    runEnds.abort();
    await totals.save();
    onEvent({ type: "ended" });
  }
}

function waitingTransport(from: Transport, limitMs: number, signal: AbortSignal): Transport {
  if (limitMs === 0) return from;
  return new Transport(
    from.settings,
    new ServerWait(from.settings, { limitMs, tell: warn, signal }),
  );
}

/** How held-out scenarios are answered; the first one decides. */
function looksOf(settings: RunSettings) {
  const { verdict, temperature } = settings;
  if (verdict === "sampled") return [{ suffix: "", temperature }];
  return [
    { suffix: " greedy", temperature: decidingTemperature(settings) },
    { suffix: " sampled", temperature },
  ];
}

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

async function warmUp(model: Model, run: Run): Promise<void> {
  const { task, own, settings, totals, onEvent, signal } = run.context;
  if (!task.warmUp) return;
  onEvent({ type: "began", label: "warming up", total: 1 });
  const how = { settings: own, seed: settings.seed, signal };
  const trained = await totals.time("warming up", async () => task.warmUp?.(model, how));
  if (trained === false) return;
  await run.evaluateOnce(model, "warmed up", run.decidingRollout());
}
