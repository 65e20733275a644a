import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { HoneError, refuseUnknownOptions, type TrajectoryGroup } from "@hone/core";
import type { Hone } from "../hone.ts";
import type { Alarm } from "../stopping/alarms.ts";
import { lastAnswer, sameAnswerKey } from "../stopping/texts.ts";
import { batchesDone } from "../training/batches.ts";
import { readGroups, writeGroups } from "../training/group-files.ts";
import { scenarioKey } from "../training/scenarios.ts";
import { warn } from "../warn.ts";
import { addWatchRecord } from "./watch-log.ts";

/** A run that an alarm has paused: its rollouts wait, and none of them has trained. */
export interface PausedRun {
  /** The batch that waits, as `batches` counts them, from 0: those that trained nothing count too. */
  batch: number;
  /** Steps that had trained before it. Absent in the pauses of older versions. */
  trained?: number | undefined;
  alarms: Alarm[];
  /** Ids of the rollouts that raised them. */
  suspicious: string[];
  /** Ids of those that will not train. */
  setAside: string[];
}

export interface PausedBatch extends PausedRun {
  groups: TrajectoryGroup[];
  /** What `score` wants trained beside them. */
  also: TrajectoryGroup[];
}

const folder = "paused";

export async function keepPaused(out: string, paused: PausedBatch): Promise<void> {
  const { groups, also, ...state } = paused;
  const at = join(out, folder);
  await rm(at, { recursive: true, force: true });
  await mkdir(at, { recursive: true });
  await writeGroups(join(at, "groups.jsonl"), groups);
  await writeGroups(join(at, "also.jsonl"), also);
  // Last: without it nothing is paused.
  await writeState(out, state);
}

async function writeState(out: string, state: PausedRun): Promise<void> {
  const path = join(out, folder, "state.json");
  await writeFile(`${path}.partial`, `${JSON.stringify(state, null, 2)}\n`);
  await rename(`${path}.partial`, path);
}

/** The pause of the run in a folder; null where it is not paused. */
export async function pausedRun(out: string): Promise<PausedRun | null> {
  const path = join(resolve(out), folder, "state.json");
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  return text === null ? null : (JSON.parse(text) as PausedRun);
}

export async function readPaused(out: string): Promise<PausedBatch | null> {
  const state = await pausedRun(out);
  if (!state) return null;
  const read = (file: string) => readGroups(join(out, folder, file));
  return { ...state, groups: await read("groups.jsonl"), also: await read("also.jsonl") };
}

/**
 * Whether the batch of a pause has trained all the same: the run went on, and was cut off before it wrote down that
 * the pause had ended. A step that an earlier start left under way is waited for.
 */
export async function hasTrained(
  hone: Hone,
  name: string,
  { batch }: PausedRun,
  signal: AbortSignal,
): Promise<boolean> {
  const model = await hone.model({ name, create: false }, { signal }).catch((error: unknown) => {
    if (HoneError.isInstance(error) && error.code === "model_not_found") return null;
    throw error;
  });
  return model !== null && batchesDone(await model.committed({ signal })) > batch;
}

/** Ends a pause whose batch has trained. What was set aside since came too late. */
export async function leavePause(out: string, paused: PausedRun): Promise<void> {
  const { batch, setAside: ids } = paused;
  const aside =
    ids.length > 0 ? ` ${ids.length} rollouts that were set aside may have trained.` : "";
  warn(`The step that was paused, ${batch + 1}, has trained: the run goes on behind it.${aside}`);
  await endPause(out, paused);
}

/** What was looked at stays, under the name of its step. */
export async function endPause(out: string, { batch }: PausedRun): Promise<void> {
  const to = join(out, `paused-step-${String(batch + 1).padStart(4, "0")}`);
  await rm(to, { recursive: true, force: true });
  await rename(join(out, folder), to);
}

/** Which rollouts of a paused run will not train. */
export interface SetAside {
  /** Their ids. */
  rollouts?: readonly string[] | undefined;
  /** All whose last answer is this text, whatever its case and spaces. */
  answer?: string | undefined;
  /** All that raised the alarms. */
  suspicious?: boolean | undefined;
}

/**
 * Sets rollouts of a paused run aside: when the run goes on, they have no reward and do not train. Each call replaces
 * what was set aside before; with nothing named, nothing is. Gives the ids.
 */
export async function setAside(out: string, which: SetAside): Promise<string[]> {
  refuseUnknownOptions("setAside()", which, ["rollouts", "answer", "suspicious"]);
  const state = await pausedRun(out);
  if (!state) {
    throw new HoneError(
      `The run in ${resolve(out)} is not paused: rollouts can be set aside only between a pause and going on.`,
      { code: "invalid_config", param: "out" },
    );
  }
  const groups = await readGroups(join(resolve(out), folder, "groups.jsonl"));
  const all = groups.flatMap(({ trajectories }) => trajectories);
  const known = new Set(all.flatMap(({ rolloutId }) => rolloutId ?? []));
  const unknown = which.rollouts?.find((id) => !known.has(id));
  if (unknown !== undefined) {
    throw new HoneError(
      `The paused step has no rollout ${unknown}. ${join(resolve(out), folder)}/groups.jsonl has them all.`,
      { code: "rollout_not_found", param: "rollouts" },
    );
  }
  const key = which.answer === undefined ? null : sameAnswerKey(which.answer);
  const said = all.filter((one) => key !== null && sameAnswerKey(lastAnswer(one) ?? "") === key);
  if (key !== null && said.length === 0) {
    throw new HoneError(`No rollout of the paused step ends with that answer.`, {
      code: "invalid_config",
      param: "answer",
    });
  }
  const chosen = new Set([
    ...(which.rollouts ?? []),
    ...said.flatMap(({ rolloutId }) => rolloutId ?? []),
    ...(which.suspicious === true ? state.suspicious : []),
  ]);
  await writeState(resolve(out), { ...state, setAside: [...chosen] });
  await addWatchRecord(resolve(out), {
    type: "set-aside",
    step: state.batch + 1,
    rollouts: [...chosen],
  });
  return [...chosen];
}

/** The paused groups without rewards for what was set aside. A missing reward is never a zero: it does not train. */
export function withoutSetAside({ groups, setAside: ids }: PausedBatch): TrajectoryGroup[] {
  const aside = new Set(ids);
  return groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) =>
      one.rolloutId !== null && aside.has(one.rolloutId)
        ? {
            ...one,
            reward: null,
            metadata: { ...one.metadata, setAside: true },
            logs: [...one.logs, "set aside: it raised an alarm, and does not train"],
          }
        : one,
    ),
  }));
}

/** Groups that wait for their step, by scenario, each once; null for a scenario that none waits for. */
export function waitingGroups(
  groups: readonly TrajectoryGroup[],
): (scenario: unknown) => TrajectoryGroup | null {
  const waiting = new Map<string, TrajectoryGroup[]>();
  for (const group of groups) {
    const key = scenarioKey(group.scenario);
    waiting.set(key, [...(waiting.get(key) ?? []), group]);
  }
  return (scenario) => waiting.get(scenarioKey(scenario))?.shift() ?? null;
}
