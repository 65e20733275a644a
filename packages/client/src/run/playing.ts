import { createHash } from "node:crypto";
import { appendFileSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { trajectorySchema, wellFormedJson, type Trajectory } from "@hone/core";
import type { RolloutPlace } from "../rollouts/rollout-run.ts";
import { scenarioKey } from "../training/scenarios.ts";

/** A rollout of a batch: its scenario, how often the batch has played that before, and its number in the group. */
interface Playing {
  scenario: unknown;
  time: number;
  member: number;
}

/** Rollouts of a batch that has not trained, so that a run which is cut off need not play them again. */
export interface KeptRollouts {
  /** How often a step of this batch has failed: what is played after that has other seeds. */
  failures: number;
  /** How often the judge has failed at this batch: it is asked again with other seeds. */
  readonly judgeFailures: number;
  find(of: Playing): Trajectory | undefined;
  keep(of: Playing, trajectory: Trajectory): void;
  noteJudgeFailure(): void;
}

const folder = "playing";
const nameOf = (batch: number) => `step-${String(batch + 1).padStart(4, "0")}`;
const fileOf = (batch: number) => `${nameOf(batch)}.jsonl`;
/** Holds how often the batch's step has failed. */
const failuresOf = (batch: number) => `${nameOf(batch)}.failures`;
/** Holds how often the judge has failed at it. */
const judgeFailuresOf = (batch: number) => `${nameOf(batch)}.judge-failures`;
const keyOf = ({ scenario, time, member }: Playing) => `${time} ${member} ${scenarioKey(scenario)}`;

/** Forgets what was played of batches before this one. Gives their steps, as the run's log counts them. */
export async function dropPassed(out: string, batch: number): Promise<number[]> {
  const at = join(out, folder);
  const stepOf = (name: string) => Number(/^step-(\d+)\./.exec(name)?.[1]);
  const passed = (await readdir(at)).filter((name) => stepOf(name) <= batch);
  await Promise.all(passed.map((name) => rm(join(at, name), { force: true })));
  return passed.filter((name) => name.endsWith(".jsonl")).map(stepOf);
}

/** What earlier starts have played of a batch. */
export async function keptRollouts(out: string, batch: number): Promise<KeptRollouts> {
  const at = join(out, folder);
  await mkdir(at, { recursive: true });
  const own = fileOf(batch);
  const found = await read(join(at, own));
  const judgeFile = join(at, judgeFailuresOf(batch));
  let judgeFailures = await countIn(judgeFile);
  return {
    failures: await countIn(join(at, failuresOf(batch))),
    get judgeFailures() {
      return judgeFailures;
    },
    noteJudgeFailure() {
      judgeFailures += 1;
      writeFileSync(judgeFile, `${judgeFailures}\n`);
    },
    find: (of) => found.get(keyOf(of)),
    keep(of, trajectory) {
      const line = wellFormedJson(JSON.stringify({ key: keyOf(of), trajectory }));
      // On a line of its own, whatever was cut off before it; and at once, so that none comes behind a `dropKept`.
      appendFileSync(join(at, own), `\n${line}\n`);
    },
  };
}

/** Forgets what was played of a batch, or of all: it has trained, it waits elsewhere, or it is to be played anew. */
export async function dropKept(out: string, batch?: number): Promise<void> {
  const at = join(out, folder);
  const names = [fileOf, failuresOf, judgeFailuresOf];
  const gone = batch === undefined ? [at] : names.map((of) => join(at, of(batch)));
  await Promise.all(gone.map((path) => rm(path, { recursive: true, force: true })));
}

/** Forgets what was played of a batch whose step has failed, and remembers that it has. */
export async function dropFailed(out: string, batch: number): Promise<void> {
  const at = join(out, folder);
  const file = join(at, failuresOf(batch));
  const failures = await countIn(file);
  await dropKept(out, batch);
  await mkdir(at, { recursive: true });
  await writeFile(file, `${failures + 1}\n`);
}

async function countIn(file: string): Promise<number> {
  const count = Number(await textOf(file));
  return Number.isSafeInteger(count) && count > 0 ? count : 0;
}

async function textOf(path: string): Promise<string> {
  return await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
}

async function read(path: string): Promise<Map<string, Trajectory>> {
  const text = await textOf(path);
  const found = new Map<string, Trajectory>();
  for (const line of text.split("\n")) {
    try {
      const { key, trajectory } = JSON.parse(line) as { key: string; trajectory: unknown };
      found.set(key, trajectorySchema.parse(trajectory));
    } catch {
      // Cut off, or of another version: it is played again.
    }
  }
  return found;
}

/** Counts how often each scenario has been dealt out before. */
export function createTimes(): (scenario: unknown) => number {
  const times = new Map<string, number>();
  return (scenario) => {
    const key = scenarioKey(scenario);
    const before = times.get(key) ?? 0;
    times.set(key, before + 1);
    return before;
  };
}

/**
 * A seed for the requests of a rollout, from 0 to 2³¹ − 1: another one for each rollout of a run, and the same when it
 * is played again. `of` is the batch; evaluations have the same seeds each time. After a step that failed they are other
 * ones: the same rollouts might fail it again in every start.
 */
export function rolloutSeed(
  run: number,
  of: number | "evaluation",
  { scenario, time, member }: Playing,
  { attempt, failures = 0 }: Pick<RolloutPlace, "attempt"> & { failures?: number | undefined },
): number {
  const parts = [run, of, scenarioKey(scenario), time, member, attempt];
  return seedOf(failures > 0 ? [...parts, failures] : parts);
}

/** The same for who judges the groups of these scenarios. After a judgement that failed it is another one. */
export function judgingSeed(
  run: number,
  of: number | "evaluation",
  groups: readonly Pick<Playing, "scenario" | "time">[],
  { failures = 0, judgeFailures = 0 }: Partial<KeptRollouts>,
): number {
  const played = groups.map(({ scenario, time }) => [scenarioKey(scenario), time]);
  return seedOf(["judging", run, of, played, failures, judgeFailures]);
}

function seedOf(parts: readonly unknown[]): number {
  return createHash("sha256").update(JSON.stringify(parts)).digest().readUInt32LE() >>> 1;
}
