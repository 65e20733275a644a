import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError, type TrajectoryGroup } from "@hone/core";
import type { RunLog } from "../run-log/run-log.ts";
import { adviseStop, differenceOf, type Advice } from "../stopping/advise.ts";
import { alarmsFor, stepText, type Alarm, type WatchedStep } from "../stopping/alarms.ts";
import { budgetReached, type Spending } from "../stopping/budget.ts";
import { stepFigures, type StepFigures } from "../stopping/step-figures.ts";
import { readGoals } from "../stopping/stop-options.ts";
import { sideBySide, sideBySideText, suspiciousRollouts } from "../stopping/suspicious.ts";
import { evaluatedOf, fixedEvaluations } from "./fixed-evaluations.ts";
import { askHeldOutJudge } from "./held-out-judge.ts";
import { endPause, keepPaused, withoutSetAside, type PausedBatch } from "./paused-run.ts";
import { dropKept } from "./playing.ts";
import type { RunEvent } from "./run-event.ts";
import type { RunSettings } from "./run-options.ts";
import type { Task } from "./task.ts";
import type { RunTotals, Taken, Totals } from "./totals.ts";
import { addWatchRecord, type Stopped, type WatchRecord } from "./watch-log.ts";

/** What a summary says of how a run went and why it ended. */
export interface WatchSummary extends Advice {
  /** Null where the run did all of its steps. */
  stopped: Stopped | null;
  alarms: Alarm[];
}

/** Steps until an alarm that still holds is raised once more. */
const quietSteps = 10;

interface WatchContext {
  task: Pick<Task<unknown>, "metric" | "heldOutJudge" | "prefer">;
  settings: RunSettings;
  out: string;
  log: RunLog;
  totals: RunTotals;
  /** What earlier starts of the run wrote down. */
  earlier: readonly WatchRecord[];
  paused: PausedBatch | null;
  onEvent: (event: RunEvent) => void;
  signal: AbortSignal;
}

export type RunWatch = Awaited<ReturnType<typeof createWatch>>;

/** Watches a run: alarms before each step trains, advice after each evaluation, the budget before each batch. */
export async function createWatch(context: WatchContext) {
  const { task, settings, out, log, totals, earlier, onEvent, signal } = context;
  const { metric = "reward" } = task;
  const { budget } = settings;
  const goals = readGoals(settings.goals);
  const note = (record: WatchRecord) => addWatchRecord(out, record);
  const change = earlier.findLastIndex(({ type }) => type === "task-changed");
  const changed = earlier[change];
  /** Of an earlier reward no figure can be compared. In batches: those that trained nothing have figures too. */
  const changedAt = changed?.type === "task-changed" ? changed.step : -1;
  const alarms = earlier.slice(change + 1).filter(({ type }) => type === "alarm") as Alarm[];
  const fixed = { metric, prefers: task.prefer !== undefined };
  const evaluations = await fixedEvaluations(log, { ...fixed, after: trainedAt(changed, log) });
  let paused = context.paused;
  let stopped = stoppedByAlarm(earlier, settings);
  let told = "";
  /** Steps trained, as far as this start has come. */
  let newest = 0;
  /** What had been spent when the newest step had ended, or the first of this start began. */
  let behind: Taken | null = null;

  function history(before: number): WatchedStep[] {
    return log.records
      .filter((record) => record.type === "step")
      .filter(({ step }) => step > changedAt && step < before)
      .sort((a, b) => a.step - b.step)
      .flatMap(({ step, watch }) => (watch ? [{ step, ...watch }] : []));
  }

  /**
   * Whether a metric that does not train says that the policy got better; null where none can tell. Evaluations are
   * as old as the steps that have `trained` since.
   */
  function metricRisen(trained: number): boolean | null {
    const [base, now] = [evaluations[0], evaluations.at(-1)];
    if (metric === "reward" || !base || !now || now.step === 0) return null;
    if (differenceOf(base, now).low > 0) return true;
    return trained - now.step < 5 ? false : null;
  }

  /** The held-out judge's word on some of the rollouts, and the figures of all. */
  async function figuresOf(groups: TrajectoryGroup[], batch: number) {
    const { heldOutJudge } = task;
    if (!heldOutJudge) return { groups, figures: stepFigures(groups) };
    const how = {
      concurrency: settings.concurrency,
      signal,
      onCost: (usd: number) => totals.addUsd(usd),
    };
    const seed = settings.seed * 1_000_003 + batch;
    const judged = await totals.time("held-out judge", () =>
      askHeldOutJudge(heldOutJudge, groups, { ...how, seed }),
    );
    return { groups: judged, figures: stepFigures(judged.map(withoutAside)) };
  }

  function raisedBy(figures: StepFigures, step: number, trained: number): Alarm[] {
    const steps = [...history(step), { step, ...figures }];
    return alarmsFor(steps, { metricRisen: metricRisen(trained) })
      .filter(
        ({ code }) =>
          !settings.ignoreAlarms.includes(code) &&
          // Raised before this very step, and cut off there, it is raised again.
          !alarms.some(
            (one) => one.code === code && one.step > step - quietSteps && one.step < step,
          ),
      )
      .map((alarm) => ({ ...alarm, trained }));
  }

  /** In the place of its step. */
  function insert(groups: readonly TrajectoryGroup[], step: number): void {
    const at = evaluations.findIndex((one) => one.step >= step);
    const same = evaluations[at]?.step === step;
    const one = evaluatedOf(groups, { ...fixed, step });
    evaluations.splice(at < 0 ? evaluations.length : at, same ? 1 : 0, one);
  }

  async function stop(given: Stopped): Promise<Stopped> {
    stopped = given;
    await note({ type: "stopped", ...given });
    onEvent({ type: "stopped", stopped: given });
    return given;
  }

  return {
    /**
     * The rollouts of a batch before they train, with their figures; null where an alarm stops the run here. Throws
     * `run_paused` where one pauses it.
     */
    async look(
      batch: { step: number; trained: number },
      given: TrajectoryGroup[],
      also: TrajectoryGroup[],
    ): Promise<{ groups: TrajectoryGroup[]; figures: StepFigures } | null> {
      const step = batch.step + 1;
      const { groups, figures } = await figuresOf(given, batch.step);
      if (paused?.batch === batch.step) return { groups, figures };
      const raised = raisedBy(figures, step, batch.trained);
      if (raised.length === 0) return { groups, figures };
      const codes = raised.map(({ code }) => code);
      const suspicious = suspiciousRollouts(groups, codes);
      const text = `${raised.map(({ code, message }) => `${code}: ${message}`).join("\n")}\n\n${sideBySideText(sideBySide(groups, suspicious))}`;
      const file = join(out, "suspicious", `step-${String(step).padStart(4, "0")}.txt`);
      await mkdir(join(out, "suspicious"), { recursive: true });
      await writeFile(file, `${text}\n`);
      for (const alarm of raised) {
        if (!alarms.some((one) => one.code === alarm.code && one.step === step)) alarms.push(alarm);
        await note({ type: "alarm", ...alarm });
        onEvent({ type: "alarm", alarm, file });
      }
      if (settings.onAlarm === "warn") return { groups, figures };
      const first = raised[0] as Alarm;
      if (settings.onAlarm === "stop") {
        const { code: what, message } = first;
        await stop({ by: "alarm", what, step: batch.trained, message });
        return null;
      }
      const ids = suspicious.flatMap(({ rolloutId }) => rolloutId ?? []);
      const { step: number, trained } = batch;
      const state = { batch: number, trained, alarms: raised, suspicious: ids, setAside: [] };
      await keepPaused(out, { ...state, groups, also });
      await dropKept(out, number);
      await note({ type: "paused", step, alarms: codes });
      throw new HoneError(
        `The run is paused before step ${stepText({ step, trained })} trained.\n\n${text}\n` +
          `They stand in ${file}. Set rollouts aside (npx @hone/client set-aside ${out} --suspicious, or setAside()), or change the reward and go on with acceptChange (--accept-change). Gone on with as it is, the step trains as it would have.`,
        { code: "run_paused" },
      );
    },

    /** Groups that a pause left for this batch, without what was set aside; null: it is to be played. */
    waiting: (batch: number): TrajectoryGroup[] | null =>
      paused?.batch === batch ? withoutSetAside(paused) : null,
    waitingAlso: (batch: number): TrajectoryGroup[] => (paused?.batch === batch ? paused.also : []),

    /** The batch that waited has trained. */
    async trained(batch: number): Promise<void> {
      const { seconds, usd } = totals.soFar();
      if (behind) totals.addStep({ seconds: seconds - behind.seconds, usd: usd - behind.usd });
      behind = { seconds, usd };
      if (paused?.batch !== batch) return;
      await endPause(out, paused);
      paused = null;
    },

    /** Reads the fixed evaluation that was made after so many steps. */
    async evaluated(groups: readonly TrajectoryGroup[], step: number): Promise<void> {
      if (!isAbsolute(groups, metric)) return;
      insert(groups, step);
      if (step === 0) return;
      const advice = adviseStop(evaluations, goals);
      const { phases, reasons, notes } = advice;
      const now = JSON.stringify([phases.at(-1)?.name, reasons.map(({ reason }) => reason), notes]);
      if (now === told) return;
      told = now;
      await note({ type: "advice", step, ...advice });
      onEvent({ type: "advice", step, advice });
    },

    /** The trained policy's answers that decide: the curve's last point. */
    finished(groups: readonly TrajectoryGroup[]): void {
      if (newest > 0 && isAbsolute(groups, metric)) insert(groups, newest);
    },

    /** Why no further batch is played; null: it may be. `trained` is the number of steps so far. */
    async ends(trained: number): Promise<Stopped | null> {
      newest = trained;
      if (stopped) return stopped;
      // Asked before and behind each step: its intervals are worked out only where they may end the run.
      const reasons = settings.stopWhen.length > 0 ? adviseStop(evaluations, goals).reasons : [];
      const reason = reasons.find(({ reason: one }) => settings.stopWhen.includes(one));
      if (reason) {
        const { reason: what, message } = reason;
        return await stop({ by: "goal", what, step: trained, message });
      }
      const { seconds, usd, newestSteps, evaluated } = totals.soFar();
      behind ??= { seconds, usd };
      const spent: Spending = { seconds, usd, steps: trained };
      const reached = budgetReached(spent, budget, {
        step: dearestOf(newestSteps),
        verdict: verdictPrice(evaluated, settings),
      });
      if (!reached) return null;
      return await stop({ by: "budget", step: trained, ...reached });
    },

    summary(): WatchSummary {
      return { ...adviseStop(evaluations, goals), stopped, alarms: [...alarms] };
    },
  };
}

/** Steps that had trained when the reward was changed; −1 where it was not. */
function trainedAt(changed: WatchRecord | undefined, log: RunLog): number {
  if (changed?.type !== "task-changed") return -1;
  const { step: batch, trained } = changed;
  if (trained !== undefined) return trained;
  return log.records.filter((one) => one.type === "step" && one.trained && one.step <= batch)
    .length;
}

/** A run that an alarm stopped is over, started again or not, until somebody takes the alarm for a false one. */
function stoppedByAlarm(
  earlier: readonly WatchRecord[],
  { onAlarm, ignoreAlarms }: Pick<RunSettings, "onAlarm" | "ignoreAlarms">,
): Stopped | null {
  const last = earlier.findLast(({ type }) => type === "stopped");
  if (last?.type !== "stopped" || last.by !== "alarm" || onAlarm !== "stop") return null;
  if (ignoreAlarms.some((code) => code === last.what)) return null;
  const { by, what, step, message } = last;
  return { by, what, step, message };
}

/** Rewards that compare the rollouts of a group have no level to advise by. */
function isAbsolute(groups: readonly TrajectoryGroup[], metric: string): boolean {
  if (metric !== "reward") return metric !== "ruler_score";
  return !groups.some(({ trajectories }) =>
    trajectories.some(({ metrics }) => metrics["ruler_score"] !== undefined),
  );
}

function withoutAside(group: TrajectoryGroup): TrajectoryGroup {
  const trajectories = group.trajectories.filter(({ metadata }) => metadata["setAside"] !== true);
  return { ...group, trajectories };
}

/** What a step takes: the dearest of the newest ones, whichever start made them. */
function dearestOf(steps: readonly Taken[]): Taken {
  return {
    seconds: Math.max(0, ...steps.map(({ seconds }) => seconds)),
    usd: Math.max(0, ...steps.map(({ usd }) => usd)),
  };
}

/** What the last evaluation is going to take, by those that were made. */
function verdictPrice(
  { rollouts, seconds, usd }: Totals["evaluated"],
  { heldOut, verdict }: RunSettings,
): Taken {
  const share = rollouts === 0 ? 0 : (heldOut * (verdict === "greedy" ? 2 : 1)) / rollouts;
  return { seconds: share * seconds, usd: share * usd };
}
