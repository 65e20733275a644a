import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { HoneError, type RolloutModel, type RolloutResult } from "@hone/client";
import { fingerprintOf, type TaskFingerprint } from "./fingerprint.ts";

/** A task is one file with these exports. */
export interface Task {
  /** Scenarios to train on: plain data. */
  train: readonly unknown[];
  /** Scenarios to judge by. None of them may be among the others. */
  heldOut: readonly unknown[];
  /** One episode. 0 asks for the likeliest answer, a higher temperature for more variety. */
  rollout: (model: RolloutModel, scenario: never, temperature: number) => Promise<RolloutResult>;
  /** What decides whether it learnt: `reward`, or one of the rollout's metrics. */
  metric: string;
  /** Whether each epoch has an order of its own. */
  shuffle: boolean;
  /** Rows of the tables: what kind of scenario this is. */
  slice: ((scenario: never) => string) | null;
  /** Tells the task from another one, and from itself after a change. */
  fingerprint: TaskFingerprint;
}

/** Reads a task file, TypeScript or JavaScript. */
export async function loadTask(path: string): Promise<Task> {
  const given = (await import(pathToFileURL(resolve(path)).href)) as Partial<
    Record<keyof Task, unknown>
  >;
  const { train, heldOut, rollout, metric = "reward", shuffle = true, slice = null } = given;
  const missing = [
    Array.isArray(train) && train.length > 0 ? "" : "train, a list of scenarios",
    Array.isArray(heldOut) && heldOut.length > 1 ? "" : "heldOut, a list of at least two scenarios",
    typeof rollout === "function" ? "" : "rollout, a function",
    typeof metric === "string" ? "" : "metric, a text",
    typeof shuffle === "boolean" ? "" : "shuffle, true or false",
    slice === null || typeof slice === "function" ? "" : "slice, a function",
  ].filter(Boolean);
  if (missing.length === 0) {
    const task = { train, heldOut, rollout, metric, shuffle, slice } as Omit<Task, "fingerprint">;
    return { ...task, fingerprint: await fingerprintOf(task, path) };
  }
  throw new HoneError(`${path} must export ${missing.join("; and ")}.`, {
    code: "invalid_config",
    param: "task",
  });
}
