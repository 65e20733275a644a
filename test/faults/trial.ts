import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { check } from "./checker.ts";
import { comparison, type Files } from "./comparison.ts";
import {
  freePort,
  startServerProcess,
  type ProcessName,
  type ServerProcess,
} from "./server-process.ts";
import { copyTemplate, modelName, type Template } from "./template.ts";
import { runWorkload, type Workload } from "./workload.ts";

/** How a run is broken: where or when, and which process is killed there. */
export interface Trial {
  name: string;
  /** Null: the process that passes the point goes on, as with a full disk. */
  victim: ProcessName | null;
  /** `point` or `point@nth`: the process that passes it dies there, or waits there while the victim is killed. */
  point?: string | undefined;
  /** Instead of a point: so long after the client began. */
  afterMs?: number | undefined;
  /** Instead of a kill: the disk is full at the point, or the process hangs there. */
  action?: "enospc" | "hang" | undefined;
  /** A second point, at which the server that is started after the first fault dies too. */
  next?: string | undefined;
  args?: readonly string[] | undefined;
}

export interface TrialResult {
  trial: Trial;
  /** What became of the step. */
  outcome: string;
  /** What is wrong: nothing, where all held. */
  faults: string[];
  /** From the fault until the server answers again with all its parts. */
  backSeconds: number | null;
  /** From the fault until the client had the end of its work. */
  doneSeconds: number | null;
  /** From the first request of the client to its last answer. */
  workMs: number;
  files: Files;
}

interface Run {
  trial: Trial;
  dataDir: string;
  port: number;
  mark: string;
  server: ServerProcess;
  pids: Record<ProcessName, number>;
  /** Made when a fault strikes. */
  marks: { first: string; next: string };
  struckAt: number | null;
  struckDate: number;
  backAt: number | null;
}

/** For what hangs. */
const limitMs = 240_000;

/**
 * One run on a copy of the template, with one thing broken on its way; what was killed comes back. `reference`
 * holds the files of a run that nothing disturbed.
 */
export async function runTrial(
  template: Template,
  trial: Trial,
  folder: string,
  reference: Files | null,
): Promise<TrialResult> {
  const dataDir = join(folder, `trial-${randomUUID()}`);
  await copyTemplate(template, dataDir);
  const run = await startRun(trial, dataDir);
  try {
    const began = performance.now();
    const work = runWorkload(run.server, template);
    const broken = breakIt(run, began);
    broken.catch(() => undefined);
    const done = await withLimit(work, run);
    const ended = performance.now();
    await withLimit(broken, run);
    await run.server.stop();
    const step = template.step + 1;
    const since = (at: number | null): number | null =>
      at === null || run.struckAt === null ? null : (at - run.struckAt) / 1000;
    const { files, faults, notes } = comparison(dataDir, step, done, reference);
    return {
      trial,
      outcome: [outcomeOf(done, run), ...notes].join("; "),
      faults: [...faults, ...(await check({ ...run, model: modelName, step }))],
      backSeconds: since(run.backAt),
      doneSeconds: since(ended),
      workMs: ended - began,
      files,
    };
  } finally {
    await run.server.stop();
    for (const path of [dataDir, `${dataDir}.log`, run.marks.first, run.marks.next]) {
      await rm(path, { recursive: true, force: true, maxRetries: 5 });
    }
  }
}

/** The files of a step that nothing disturbed, and how long the client's work takes. */
export async function runReference(template: Template, folder: string): Promise<TrialResult> {
  return await runTrial(template, { name: "undisturbed", victim: null }, folder, null);
}

async function startRun(trial: Trial, dataDir: string): Promise<Run> {
  const run = {
    trial,
    dataDir,
    port: await freePort(),
    mark: randomUUID(),
    marks: { first: `${dataDir}.first`, next: `${dataDir}.next` },
    struckAt: null,
    struckDate: Infinity,
    backAt: null,
  };
  const server = await start(run, faultOf(trial), run.marks.first);
  // A server that is stopped does not say them.
  const { components } = await server.health();
  const pids = {
    server: server.pid,
    worker: components["worker"]?.pid ?? 0,
    renderer: components["renderer"]?.pid ?? 0,
  };
  return { ...run, server, pids };
}

async function start(
  { dataDir, port, mark, trial }: Pick<Run, "dataDir" | "port" | "mark" | "trial">,
  fault: string | null,
  struck = "",
): Promise<ServerProcess> {
  const env = fault ? { HONE_FAULT: fault, HONE_FAULT_MARK: struck } : undefined;
  return await startServerProcess({ dataDir, port, mark, env, args: trial.args });
}

function ownerOf(point: string): ProcessName {
  return point.startsWith("worker.") ? "worker" : "server";
}

function faultOf({ point, victim, action }: Trial): string | null {
  if (point === undefined) return null;
  if (action === "enospc") return `${point}:enospc`;
  const dies = victim === ownerOf(point) && action !== "hang";
  return `${point}:${dies ? "kill" : "stop"}`;
}

/** Waits for the fault, kills whom the trial names, and starts again what nobody else does. */
async function breakIt(run: Run, began: number): Promise<void> {
  const { victim, point, afterMs, action } = run.trial;
  if (point !== undefined) {
    await until(() => existsSync(run.marks.first), `${point} was not passed`);
  } else if (afterMs !== undefined) {
    await delay(Math.max(0, began + afterMs - performance.now()));
  }
  run.struckAt = performance.now();
  run.struckDate = Date.now();
  if (victim === null) return;
  const owner = point === undefined ? null : ownerOf(point);
  if (owner === null) signal(run.pids[victim], "SIGKILL");
  else if (owner !== victim) {
    await until(() => isStopped(run.pids[owner]), `the ${owner} did not stop at ${point}`);
    signal(run.pids[victim], "SIGKILL");
    signal(run.pids[owner], "SIGCONT");
  } else if (action === "hang") {
    await until(() => isStopped(run.pids[owner]), `the ${owner} did not stop at ${point}`);
  }
  if (victim === "server") await restart(run);
  else await untilBack(run, victim);
  run.backAt = performance.now();
}

async function restart(run: Run): Promise<void> {
  await run.server.ended;
  const { next } = run.trial;
  if (next !== undefined) {
    // It may die before it serves, or after.
    const second = await start(run, `${next}:kill`, run.marks.next).catch(() => null);
    await second?.ended;
    if (!existsSync(run.marks.next)) throw new Error(`${next} was not passed`);
  }
  run.server = await start(run, null);
}

async function untilBack(run: Run, victim: ProcessName): Promise<void> {
  for (;;) {
    const health = await run.server.health().catch(() => null);
    const restarts = health?.components[victim]?.restarts ?? 0;
    if (health?.status === "ok" && restarts > 0) return;
    await delay(50);
  }
}

function outcomeOf({ events, refusedWith }: Workload, { trial, struckDate }: Run): string {
  if (refusedWith !== null) return `failed with ${refusedWith}, trained when asked again`;
  const warned = events.some(({ type }) => type === "warning");
  // A server that completes a commit finds the checkpoint written: it has no such stage of its own.
  const written = events.findIndex(
    (event) => event.type === "stage" && event.stage === "checkpoint",
  );
  const recovered =
    written >= 0 && !events.some((event) => event.type === "stage" && event.stage === "commit");
  if (warned) return "redone from N";
  if (trial.victim === null) return "not disturbed";
  const committed = events.find(({ type }) => type === "committed")?.at ?? Infinity;
  if (struckDate > committed) return "rolled forward";
  if (trial.victim === "server") return recovered ? "commit completed" : "begun after the restart";
  return "went on";
}

async function until(reached: () => boolean, otherwise: string): Promise<void> {
  const limit = performance.now() + limitMs;
  while (!reached()) {
    if (performance.now() > limit) throw new Error(otherwise);
    await delay(5);
  }
}

/** A trial that does not end is one that failed. */
async function withLimit<T>(work: Promise<T>, run: Run): Promise<T> {
  const limit = new AbortController();
  const late = delay(limitMs, null, { signal: limit.signal }).then(() => {
    const log = existsSync(`${run.dataDir}.log`) ? readFileSync(`${run.dataDir}.log`, "utf8") : "";
    throw new Error(`no end after ${limitMs / 1000} s. The server's log: ${log.slice(-4_000)}`);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    limit.abort();
  }
}

function isStopped(pid: number): boolean {
  try {
    return /\) [Tt] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
