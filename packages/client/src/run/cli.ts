#!/usr/bin/env node
// `npx @hone/client train my-task.ts`: a run of the task in that file, from start to verdict. `probe my-task.ts`
// looks before a run is paid for.
import { Socket } from "node:net";
import { resolve } from "node:path";
import { HoneError } from "@hone/core";
import { probeCommand } from "./probe-command.ts";
import { readCommandLine, type CommandLine } from "./cli-options.ts";
import { createReporter } from "./reporter.ts";
import { findRun, keepRun, newRun } from "./run-folders.ts";
import { setAsideCommand } from "./set-aside-command.ts";
import { summaryText } from "./summary-text.ts";
import { loadTask } from "./task-file.ts";
import { trainRun } from "./train-run.ts";

const usage = `npx @hone/client train TASK.ts [options]
npx @hone/client probe TASK.ts [options]
npx @hone/client set-aside RUN [options]

Trains the model behind an agent on a task: a file whose default export is what defineTask gives.
The server is found by HONE_URL and HONE_API_KEY, or is that of this machine.

  probe TASK.ts              some rollouts of the base: is there something to learn, and what would it take?
  train TASK.ts --help       all options, those of the task among them; probe TASK.ts --help: its own
  train TASK.ts --resume     go on with the newest run of the task
  set-aside RUN --help       takes rollouts of a paused run out of its training
`;

/** Told apart from a run that failed: this one waits for somebody who looks. */
const exitPaused = 3;

const stop = new AbortController();
/** Whether the run has passed its checks, and how it goes on when it ends before its verdict. */
let started = false;
let goOn = "Nothing was begun.";
process.on("SIGINT", interrupt);
process.on("SIGTERM", interrupt);
let interruptedAt = -Infinity;
function interrupt(): void {
  // npx passes on what the terminal has sent already: one Ctrl-C arrives twice.
  if (performance.now() - interruptedAt < 500) return;
  interruptedAt = performance.now();
  if (stop.signal.aborted) process.exit(130);
  process.stderr.write(
    "\nStopping: closing the rollouts that are open. Once more to leave at once.\n",
  );
  stop.abort();
}

// For who starts it on a user's behalf and holds its input open: when that one is killed outright, nobody else ends a
// run, which would wait for its server for a quarter of an hour.
if (process.env["HONE_STOP_AT_EOF"]) {
  // Not for what the task starts in turn.
  delete process.env["HONE_STOP_AT_EOF"];
  process.stdin.once("close", endSoon).resume();
  if (process.stdin instanceof Socket) process.stdin.unref();
}

function endSoon(): void {
  interrupt();
  // Nobody is there to ask a second time.
  setTimeout(() => process.exit(130), 15_000).unref();
}

const [command, file, ...args] = process.argv.slice(2);
if (command === undefined || command === "--help" || command === "-h" || file === "--help") {
  console.log(usage);
} else if (command !== "train" && command !== "probe" && command !== "set-aside") {
  refuse(`there is no command "${command}"`);
} else if (file === undefined || file.startsWith("-")) {
  refuse(
    `name ${command === "set-aside" ? "the run's folder" : "the task's file"} after ${command}`,
  );
} else {
  const done =
    command === "train"
      ? train(file, args)
      : command === "probe"
        ? probeCommand(file, args, stop.signal)
        : setAsideCommand(file, args);
  process.exitCode = await done.catch(exitCodeOf);
}

function refuse(why: string): void {
  console.error(`error: ${why}\n\n${usage}`);
  process.exitCode = 1;
}

async function train(taskFile: string, given: string[]): Promise<number> {
  const { task, path, taskSource } = await loadTask(taskFile);
  const asked = readCommandLine(taskFile, task, given);
  const begun = asked.resume ? findRun(path, asked.run) : null;
  // The options that it began with, and those given now after them.
  const chosen = begun ? readCommandLine(taskFile, task, [...begun.args, ...given]) : asked;
  const run = begun ?? newRun(path, asked.run, given);
  const { name, out } = run;
  const report = createReporter(process.stdout);
  const summary = await trainRun(task, {
    ...chosen.run,
    ...{ name, out, taskSource, signal: stop.signal },
    onEvent(event) {
      if (event.type === "started") {
        if (!begun) keepRun(run);
        started = true;
        goOn = stoppedText(taskFile, out, chosen);
      }
      report(event);
    },
  });
  const { serverData } = chosen;
  console.log(summaryText(summary, serverData === undefined ? null : resolve(serverData)));
  if (summary.outcome === "nothing-trained") return 1;
  return summary.learnt || chosen.run.ungated ? 0 : 1;
}

/** The model lives in the server's data: only a server on that data goes on with it. */
function stoppedText(taskFile: string, out: string, { serverData }: CommandLine): string {
  if (serverData !== undefined) return `The model is in the server's data folder, ${serverData}`;
  return `On the same server it goes on by: npx @hone/client train ${taskFile} --resume --out ${out}`;
}

function exitCodeOf(error: unknown): number {
  if (stop.signal.aborted) {
    console.error(`Stopped. ${goOn}`);
    return 130;
  }
  if (!HoneError.isInstance(error)) throw error;
  console.error(`${error.code}: ${error.message}`);
  // A run goes on after a lost connection, but a task or an option that is wrong would be wrong again.
  if (started && error.code !== "invalid_config") console.error(goOn);
  return error.code === "run_paused" ? exitPaused : 1;
}
