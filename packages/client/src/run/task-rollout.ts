import type { Rollout, RolloutPlace } from "../rollouts/rollout-run.ts";
import { readSettings } from "./run-options.ts";
import {
  readOwnSettings,
  requireTask,
  type RolloutHow,
  type Task,
  type TaskSettings,
} from "./task.ts";

/**
 * A task's rollout for `gather`, as a run of the task would play it: with the run's temperature and answer limit and
 * the task's own settings, where none are given. `contextTokens` is `maxModelLen` of `model.info()`.
 */
export function taskRollout<Scenario, Settings extends TaskSettings>(
  task: Task<Scenario, Settings>,
  how: {
    contextTokens: number | null;
    temperature?: number | undefined;
    answerTokens?: number | undefined;
    settings?: Partial<Settings> | undefined;
  },
): Rollout<Scenario> {
  requireTask("taskRollout()", task);
  const run = readSettings(task, {});
  const { temperature = run.temperature, answerTokens = run.answerTokens, contextTokens } = how;
  const settings = readOwnSettings(task, how.settings);
  return rolloutWith(task, { temperature, answerTokens, contextTokens, settings });
}

/** A place whose rollout has a seed: in a run, and nowhere else. */
export type SeededPlace = RolloutPlace & { seed?: number };

/** The same for a run, which has looked at the task and its settings. */
export function rolloutWith<Scenario, Settings extends TaskSettings>(
  task: Task<Scenario, Settings>,
  how: Omit<RolloutHow<Settings>, "seed">,
): Rollout<Scenario> {
  // Called by a program of its own, it may get no place.
  return (model, scenario, place?: SeededPlace) =>
    task.rollout(model, scenario, { ...how, seed: place?.seed ?? null });
}
