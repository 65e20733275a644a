#!/usr/bin/env node
// `npx @hone/recipes judge-doctor`: whether judges can teach the policy behind a task. `good-teacher`: the pipeline that
// shows what makes a reward model a good teacher. `train-judge`: a judge from labelled answers.
import process from "node:process";
import { HoneError, printable } from "@hone/core";
import { goodTeacherCommand } from "./good-teacher-command.ts";
import { judgeDoctorCommand } from "./judge-doctor-command.ts";
import { collectDisagreementsCommand, trainJudgeCommand } from "./train-judge-command.ts";

const usage = `npx @hone/recipes judge-doctor --task TASK.ts --judges JUDGE,…   whether a judge can teach, and why
       npx @hone/recipes good-teacher                                         reward models as teachers, stage by stage
       npx @hone/recipes train-judge --data FILE --mode … --method … --model NAME   a judge from labelled answers
       npx @hone/recipes collect-disagreements FILES --truth METRIC --out FILE      labelled answers from a run

  judge-doctor --help        all options
  train-judge --help, collect-disagreements --help: theirs
  good-teacher --help        all stages
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

const commands: Readonly<Record<string, typeof judgeDoctorCommand>> = {
  "judge-doctor": judgeDoctorCommand,
  "good-teacher": goodTeacherCommand,
  "train-judge": trainJudgeCommand,
  "collect-disagreements": collectDisagreementsCommand,
};
const [name, ...args] = process.argv.slice(2);
if (name === undefined || name === "--help" || name === "-h") {
  console.log(usage);
} else {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command) {
    process.exitCode = await command(args, stop.signal).catch(exitCodeOf);
  } else {
    console.error(`error: there is no command "${name}"\n\n${usage}`);
    process.exitCode = 2;
  }
}

function exitCodeOf(error: unknown): number {
  if (stop.signal.aborted) {
    const resumes = name === "train-judge" || name === "good-teacher";
    console.error(resumes ? "Stopped. The same command goes on where it was." : "Stopped.");
    return 130;
  }
  if (!HoneError.isInstance(error)) throw error;
  console.error(`${error.code}: ${printable(error.message)}`);
  return 2;
}
