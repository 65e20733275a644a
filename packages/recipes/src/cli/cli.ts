#!/usr/bin/env node
// `npx @hone/recipes judge-doctor`: whether judges can teach the policy behind a task.
import process from "node:process";
import { HoneError, printable } from "@hone/core";
import { judgeDoctorCommand } from "./judge-doctor-command.ts";

const usage = `npx @hone/recipes judge-doctor --task TASK.ts --judges JUDGE,…   whether a judge can teach, and why

  judge-doctor --help        all options
`;

const stop = new AbortController();
let interruptedAt = -Infinity;
function interrupt(): void {
  // npx passes on what the terminal has sent already: one Ctrl-C arrives twice.
  if (performance.now() - interruptedAt < 500) return;
  interruptedAt = performance.now();
  if (stop.signal.aborted) process.exit(130);
  process.stderr.write("\nStopping. Once more to leave at once.\n");
  stop.abort();
}
process.on("SIGINT", interrupt);
process.on("SIGTERM", interrupt);

const [command, ...args] = process.argv.slice(2);
if (command === undefined || command === "--help" || command === "-h") {
  console.log(usage);
} else if (command !== "judge-doctor") {
  console.error(`error: there is no command "${command}"\n\n${usage}`);
  process.exitCode = 2;
} else {
  process.exitCode = await judgeDoctorCommand(args, stop.signal).catch(exitCodeOf);
}

function exitCodeOf(error: unknown): number {
  if (stop.signal.aborted) {
    console.error("Stopped.");
    return 130;
  }
  if (!HoneError.isInstance(error)) throw error;
  console.error(`${error.code}: ${printable(error.message)}`);
  return 2;
}
