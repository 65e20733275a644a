// What the store costs with many rollouts: the start, lists, a step, gc, and for how long the main loop stands.
//   pnpm bench store [--rollouts 100000,1000000] [--folder DIR] [--no-gc] [--json FILE]
import { cp, mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { gcRequestSchema } from "@hone/core";
import {
  adapterList,
  ended,
  fileTrainer,
  openTestState,
  silent,
  type TestState,
} from "../packages/server/src/testing/fixtures.ts";
import { collectOffline } from "../packages/server/src/retention/offline.ts";
import { fill, model, probes } from "./store-fill.ts";

const { values: options } = parseArgs({
  options: {
    rollouts: { type: "string", default: "100000,1000000" },
    /** Where filled data directories stay for the next run. */
    folder: { type: "string" },
    "no-gc": { type: "boolean", default: false },
    json: { type: "string" },
    help: { type: "boolean", default: false },
    /** Inside: measures one data directory, which it may change. */
    measure: { type: "string" },
    offline: { type: "boolean", default: false },
  },
});
if (options.help) {
  console.log(
    "pnpm bench store [--rollouts 100000,1000000] [--folder DIR] [--no-gc] [--json FILE]",
  );
} else if (options.measure) {
  await (options.offline ? measureOffline(options.measure) : measure(options.measure));
} else {
  await main();
}

async function main(): Promise<void> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "hone-bench-store-")));
  await mkdir(folder, { recursive: true });
  const results: unknown[] = [];
  try {
    for (const rollouts of options.rollouts.split(",").map(Number)) {
      const source = join(folder, `rollouts-${rollouts}`);
      if (!existsSync(source)) {
        const begin = performance.now();
        await mkdir(source);
        await fill(source, rollouts);
        console.log(`${rollouts} rollouts made in ${seconds(begin)} s`);
      }
      console.log(`\n${rollouts} rollouts, ${((await bytes(source)) / 1e9).toFixed(2)} GB`);
      for (const kind of options["no-gc"] ? [[]] : [["--offline"], []]) {
        const copy = await mkdtemp(join(folder, "copy-"));
        try {
          await cp(source, copy, { recursive: true });
          const child = spawnSync(
            process.execPath,
            [
              ...process.execArgv,
              import.meta.filename,
              "--measure",
              copy,
              ...kind,
              ...(options["no-gc"] ? ["--no-gc"] : []),
            ],
            { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" },
          );
          process.stdout.write(child.stdout);
          if (child.status !== 0) process.exitCode = 1;
          results.push({ rollouts, lines: child.stdout.trim().split("\n") });
        } finally {
          await rm(copy, { recursive: true, force: true });
        }
      }
    }
    if (options.json) await writeFile(options.json, `${JSON.stringify(results, null, 2)}\n`);
  } finally {
    if (!options.folder) await rm(folder, { recursive: true, force: true });
  }
}

async function measure(dataDir: string): Promise<void> {
  const opened = await timed("start: schema brought up to date", () => open(dataDir));
  await opened.state.close();
  const before = process.memoryUsage().rss;
  const test = await timed("start", () => open(dataDir));
  console.log(
    `${"  resident memory more than before".padEnd(52)} ${mb(process.memoryUsage().rss - before)} MB`,
  );

  const path = `/v1/models/${model}/rollouts?limit=100`;
  const page = await list(test, "rollouts, first page", path);
  await list(test, "rollouts, a page deep inside", `${path}&after=${page.at(-1)}`);
  for (const [name, query] of [
    ["status failed", "status=failed"],
    ["status open", "status=open"],
    ["mode eval", "mode=eval"],
    ["a group", `group=${probes.group}`],
    ["a step", `step=${probes.step}`],
    ["an operation", `operation=${probes.operation}`],
    ["a group that is not there", "group=none"],
    ["an old step, failed", `step=${probes.step}&status=failed`],
    ["mode eval, open", "mode=eval&status=open"],
    ["failed, trained by an operation (none)", "status=failed&mode=eval&step=999999"],
  ] as const) {
    await list(test, `rollouts, ${name}`, `${path}&${query}`);
  }
  await list(test, "operations, first page", `/v1/models/${model}/operations?limit=100`);
  await list(test, "operations, type train", `/v1/models/${model}/operations?limit=100&type=train`);
  await list(test, "operations, type import (none)", `/v1/models/${model}/operations?type=import`);
  await list(test, "policies with why each is kept", `/v1/models/${model}/policies`);
  await train(test, await stepOf(test, "first", 8)); // what is compiled at first use is no matter of a step's size
  const steps = [];
  for (let round = 0; round < 5; round++) {
    const body = await stepOf(test, `step${round}`, 512);
    steps.push(await watched(() => train(test, body)));
  }
  sayMiddle("a step of 512 rollouts, with its retention", steps);
  if (!options["no-gc"]) {
    await timed("gc --dry-run --older-than", () => gc(test, true));
    await timed("gc --older-than", () => gc(test, false));
    await timed("a model deleted, with its rollouts", () => deleteModel(test));
  }
  await test.state.close();
}

async function measureOffline(dataDir: string): Promise<void> {
  await (await open(dataDir)).state.close();
  const request = gcRequestSchema.parse({ olderThanMs: 0 });
  await timed("gc --older-than, no server", () => collectOffline(dataDir, request, silent));
}

function open(dataDir: string): Promise<TestState> {
  const engine = adapterList();
  return openTestState(dataDir, {
    engine: () => engine,
    trainer: fileTrainer(),
    leaseMs: 3_600_000,
  });
}

/** The middle one of several: what else runs on the machine disturbs single ones. */
async function list(test: TestState, name: string, path: string): Promise<string[]> {
  const runs: { ms: number; stall: number }[] = [];
  let ids: string[] = [];
  for (let round = 0; round < 5; round++) {
    const { value, ...cost } = await watched(() => test.call("GET", path));
    if (value.status !== 200) throw new Error(`${path}: ${value.status}`);
    ids = (value.json.data as { id: string }[]).map(({ id }) => id);
    runs.push(cost);
  }
  sayMiddle(`${name} (${ids.length})`, runs);
  return ids;
}

function sayMiddle(name: string, runs: readonly { ms: number; stall: number }[]): void {
  const middle = (of: "ms" | "stall"): number =>
    runs.map((run) => run[of]).sort((a, b) => a - b)[2]!;
  say(name, middle("ms"), middle("stall"));
}

async function stepOf(test: TestState, name: string, rollouts: number): Promise<object> {
  const groups = [];
  for (let group = 0; group < rollouts / 8; group++) {
    const members = [];
    for (let member = 0; member < 8; member++) {
      const { json } = await test.call("POST", "/v1/rollouts", { model });
      await test.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished" });
      members.push({ rolloutId: json.id as string, reward: member % 2 });
    }
    groups.push({ id: `${name}-${group}`, rollouts: members });
  }
  return { clientToken: `bench-${name}`, op: { type: "train", groups } };
}

async function train(test: TestState, body: object): Promise<void> {
  const { status, json } = await test.call("POST", `/v1/models/${model}/operations`, body);
  if (status >= 300) throw new Error(`train: ${status} ${JSON.stringify(json)}`);
  await ended(test, json.id);
}

async function gc(test: TestState, dryRun: boolean): Promise<void> {
  const { status } = await test.call("POST", "/v1/gc", { dryRun, olderThanMs: 0 });
  if (status !== 200) throw new Error(`gc: ${status}`);
}

/** Until its last row has left the database. */
async function deleteModel(test: TestState): Promise<void> {
  const operations = await test.call("GET", `/v1/models/${model}/operations?limit=1`);
  const last = (operations.json.data as { id: string }[])[0]?.id;
  const { status } = await test.call("DELETE", `/v1/models/${model}?force=true`);
  if (status !== 200) throw new Error(`DELETE: ${status}`);
  while ((await test.call("GET", `/v1/operations/${last}`)).status === 200) await delay(20);
}

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const { value, ms, stall } = await watched(work);
  say(name, ms, stall);
  return value;
}

/** How long it took, and the longest time for which no timer came. */
async function watched<T>(
  work: () => Promise<T>,
): Promise<{ value: T; ms: number; stall: number }> {
  let stall = 0;
  let last = performance.now();
  const tick = (): void => {
    const now = performance.now();
    stall = Math.max(stall, now - last);
    last = now;
  };
  const ticker = setInterval(tick, 1);
  const begin = performance.now();
  try {
    const value = await work();
    const ms = performance.now() - begin;
    tick();
    return { value, ms, stall };
  } finally {
    clearInterval(ticker);
  }
}

function say(name: string, ms: number, stall: number): void {
  const took = ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s ` : `${ms.toFixed(1)} ms`;
  console.log(
    `${name.padEnd(52)} ${took.padStart(11)}   loop stood ${stall.toFixed(1).padStart(7)} ms`,
  );
}

async function bytes(dataDir: string): Promise<number> {
  return (await stat(join(dataDir, "hone.db"))).size;
}

function seconds(begin: number): string {
  return ((performance.now() - begin) / 1000).toFixed(1);
}

function mb(count: number): string {
  return (count / 1e6).toFixed(0);
}
