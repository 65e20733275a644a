// `pnpm faults:vllm [--only NAME,NAME] [--list] [--results FILE] [--minutes N] [--again]`: breaks real vLLMs under a run, one of the
// server's own and one that joined, and prints what came of it. Needs `hone setup --engine vllm` and HONE_PYTHON. Each
// result is kept in a file: what is as it should be is not tried again. All of it takes about half an hour.
import { randomUUID } from "node:crypto";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { processesOf } from "../server-process.ts";
import type { Fault } from "./fault.ts";
import { faults } from "./plan.ts";
import { leftOver } from "./processes.ts";
import {
  noteResult,
  readResults,
  rowOf,
  stillToTry,
  tableOf,
  type FaultResult,
} from "./results.ts";
import { joinedName, ownName, startSetting, type Setting } from "./setting.ts";

const { values } = parseArgs({
  options: {
    /** Only these faults, by their names. */
    only: { type: "string", multiple: true, default: [] },
    /** Shows the names, and what each does. */
    list: { type: "boolean", default: false },
    results: { type: "string", default: join(tmpdir(), "hone-faults-vllm.jsonl") },
    /** Begins none after so many minutes. */
    minutes: { type: "string", default: "" },
    /** Also those that were as they should be. */
    again: { type: "boolean", default: false },
  },
});
if (values.list) {
  for (const { name, what } of faults) console.log(`${name.padEnd(28)}${what}`);
  process.exit(0);
}
const names = values.only.flatMap((given) => given.split(","));
for (const name of names) {
  if (!faults.some((fault) => fault.name === name)) {
    fail(`There is no fault "${name}". --list shows all.`);
  }
}
if (!process.env["HONE_PYTHON"])
  fail("HONE_PYTHON does not name the worker's Python. `hone setup` prints it.");
// In the order in which they were named.
const wanted =
  names.length === 0
    ? faults
    : names.flatMap((name) => faults.find((one) => one.name === name) ?? []);
const until = values.minutes === "" ? Infinity : Number(values.minutes) * 60_000;
if (!(until > 0)) fail("--minutes is a number above 0.");
const chosen = values.again ? wanted : stillToTry(wanted, readResults(values.results));

// Every descendant inherits it, so what is left over can be found.
const mark = (process.env["HONE_TEST_MARK"] = randomUUID());
process.env["OMP_NUM_THREADS"] = "1";
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // Its children end when this process does.
    if (stop.signal.aborted) process.exit(130);
    say("stopping; once more does not wait");
    stop.abort();
  });
}

if (chosen.length > 0) await runAll();
else say("all of them were as they should be; --again tries them once more");
const results = readResults(values.results);
console.log(tableOf(wanted.flatMap(({ name }) => results.get(name) ?? [])));
const missing = stillToTry(wanted, results).length;
const left = await leftAtTheEnd();
console.log(
  `\n${wanted.length - missing} of ${wanted.length} as they should be (${values.results}); processes left over at the end: ${left.length}.`,
);
process.exit(stop.signal.aborted ? 130 : missing + left.length > 0 ? 1 : 0);

async function runAll(): Promise<void> {
  let setting: Setting | null = null;
  try {
    setting = await startSetting(say, stop.signal);
    for (const [at, fault] of chosen.entries()) {
      if (stop.signal.aborted || performance.now() > until) break;
      const result = await runOne(fault, setting);
      // What was cut short says nothing.
      if (stop.signal.aborted) break;
      noteResult(values.results, result);
      say(`${at + 1}/${chosen.length} ${rowOf(result)}`);
      // What comes next needs both engines.
      if (result.wrong.length > 0 && !(await areBoth(setting))) {
        say("an engine does not serve any more: starting all anew");
        await setting.close();
        setting = await startSetting(say, stop.signal);
      }
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    say("ending all");
    await setting?.close();
  }
}

async function areBoth(on: Setting): Promise<boolean> {
  const infos = await Promise.all([on.engine(ownName), on.engine(joinedName)]);
  return infos.every(({ state }) => state === "serving");
}

async function runOne(fault: Fault, on: Setting): Promise<FaultResult> {
  say(`${fault.name}: ${fault.what} …`);
  const { traffic } = on;
  const before = { ...traffic, ...countsOf(on) };
  const result: FaultResult = {
    ...{ fault: fault.name, what: fault.what, at: new Date().toISOString() },
    ...{ noticed: null, back: null, said: "", answers: 0, broken: 0, failed: 0 },
    ...{ left: 0, wrong: [], load: loadavg()[0] ?? 0 },
  };
  const { wrong } = result;
  try {
    const { wrong: found, ...outcome } = await fault.run(on, stop.signal);
    Object.assign(result, outcome);
    wrong.push(...found);
    if (fault.needsTraffic && traffic.answers === before.answers) {
      wrong.push("nothing was answered meanwhile");
    }
    const step = await on.trainStep();
    if (!step.startsWith("words@")) wrong.push(`the run did not go on: ${step}`);
    const next = await on.publish();
    if (next.status !== "succeeded")
      wrong.push(`nothing could be published afterwards: ${next.error}`);
    if (!(await areBoth(on))) wrong.push("an engine takes no traffic after the publication");
    const late = leftOver([on.vllm(ownName), on.vllm(joinedName)]);
    result.left = late.length;
    if (late.length > 0) wrong.push(`${late.length} processes of a vLLM are left`);
  } catch (error) {
    wrong.push((error as Error).message);
  }
  const after = countsOf(on);
  result.answers = traffic.answers - before.answers;
  result.broken = after.broken - before.broken;
  result.failed = after.failed - before.failed;
  for (const one of traffic.failed.slice(before.failed))
    wrong.push(`a stream was given up: ${one}`);
  wrong.push(...traffic.wrong.slice(before.other));
  return result;
}

function countsOf({ traffic }: Setting): { broken: number; failed: number; other: number } {
  const { broken, failed, wrong } = traffic;
  return { broken: broken.length, failed: failed.length, other: wrong.length };
}

async function leftAtTheEnd(): Promise<number[]> {
  const look = (): number[] => {
    const marked = processesOf(mark).filter((pid) => pid !== process.pid);
    return [...new Set([...marked, ...leftOver([])])];
  };
  for (let nth = 0; nth < 20 && look().length > 0; nth++) await delay(500);
  return look();
}

function say(line: string): void {
  console.error(`${new Date().toISOString().slice(11, 19)} ${line}`);
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
