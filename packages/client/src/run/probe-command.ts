import { Command, InvalidArgumentError } from "commander";
import { HoneError, numberReader } from "@hone/core";
import { ownOptions } from "./cli-options.ts";
import { loadTask } from "./task-file.ts";
import { readSettings, type RunSettings } from "./run-options.ts";
import type { Task, TaskSettings } from "./task.ts";
import { probeTask, type ProbeEvent, type ProbeOptions } from "./probe.ts";
import { probeText } from "./probe-text.ts";

interface ProbeCommandLine {
  options: ProbeOptions<TaskSettings>;
  json: boolean;
}

/** `npx @hone/client probe TASK.ts`; exits with 0 only where the verdict is to go on. */
export async function probeCommand(
  file: string,
  args: string[],
  signal: AbortSignal,
): Promise<number> {
  const { task } = await loadTask(file);
  const { options, json } = readProbeLine(file, task, args);
  const onEvent = json ? undefined : progressOn(process.stderr);
  const report = await probeTask(task, { ...options, signal, onEvent });
  console.log(json ? JSON.stringify(report, null, 2) : probeText(report));
  return report.verdict === "go" ? 0 : 1;
}

/** The options of `probe FILE`, with the task's own settings among them; ends the process where one is wrong. */
function readProbeLine(
  file: string,
  task: Pick<Task<unknown>, "settings" | "options" | "heldOut">,
  args: string[],
): ProbeCommandLine {
  const defaults = readSettings(task, {});
  const own = Object.entries(task.settings ?? {});
  const program = new Command(`npx @hone/client probe ${file}`)
    .description(
      "Plays some rollouts of the base, and says whether a run would have something to learn from, and what it would take.",
    )
    .showHelpAfterError("--help lists all options.")
    .optionsGroup("The probe:")
    .option("--rollouts <n>", "rollouts to play", whole(2), 64)
    .option(
      "--pass-at <value>",
      "a rollout passes from this value of the task's metric on (default: 1, where it lies between 0 and 1)",
      number({}),
    )
    .option("--no-judge-twice", "the task's score judges once; its noise is not measured")
    .option("--no-train-step", "train no step; what training takes is not in the estimate")
    .option(
      "--usd-per-hour <price>",
      "of the machine that serves and trains, for the estimate",
      number({ least: 0 }),
    )
    .option("--json", "the whole report as JSON")
    .optionsGroup("The run to reckon with:")
    .option("--steps <n>", "training steps", whole(0), defaults.steps)
    .option("--groups-per-step <n>", "scenarios of a step", whole(1), defaults.groupsPerStep)
    .option("--group-size <n>", "rollouts of one scenario", whole(2), defaults.groupSize)
    .option("--concurrency <n>", "rollouts at once", whole(1), defaults.concurrency)
    .option("--temperature <t>", "of training", number({ above: 0 }), defaults.temperature)
    .option("--answer-tokens <n>", "tokens an answer may have", whole(1), defaults.answerTokens)
    .option("--held-out <n>", "held-out scenarios of its verdict", whole(2), defaults.heldOut)
    .option("--eval-every <n>", "steps between evaluations", whole(0), defaults.evalEvery)
    .option("--seed <n>", "of adapter and choice of scenarios", whole(0, 1e6), defaults.seed)
    .optionsGroup("Settings of the task:");
  const taken = new Set(program.options.map((option) => option.attributeName()));
  for (const [name, value] of own) {
    if (taken.has(name)) throw takenName(name);
    for (const option of ownOptions(name, value)) program.addOption(option);
  }
  program.parse(args, { from: "user" });
  const { json = false, ...given } = program.opts<
    Partial<RunSettings> & ProbeOptions<TaskSettings> & Record<string, unknown> & { json?: boolean }
  >();
  const names = new Set(own.map(([name]) => name));
  const isOwn = ([name]: [string, unknown]) => names.has(name);
  const entries = Object.entries(given);
  return {
    options: {
      ...Object.fromEntries(entries.filter((entry) => !isOwn(entry))),
      settings: Object.fromEntries(entries.filter(isOwn)) as TaskSettings,
    },
    json,
  };
}

function takenName(name: string): HoneError {
  return new HoneError(
    `The task's setting "${name}" is an option of the probe's too, so that the command cannot tell them apart. Call it something else, or probe from code: probeTask(task, { settings }).`,
    { code: "invalid_config", param: `settings.${name}` },
  );
}

/** On a terminal a line that shows how far it is; elsewhere a line for each stage. */
function progressOn(output: NodeJS.WriteStream): (event: ProbeEvent) => void {
  let stage = "";
  return (event) => {
    const began = event.stage !== stage;
    stage = event.stage;
    if (output.isTTY) {
      const share = Math.floor((100 * event.done) / Math.max(1, event.total));
      output.write(`\r\x1b[2K${event.stage} ${share}%`);
      if (event.done === event.total) output.write("\r\x1b[2K");
    } else if (began) output.write(`${event.stage} …\n`);
  };
}

const number = (range: Parameters<typeof numberReader>[0]) =>
  numberReader(range, InvalidArgumentError);
const whole = (least: number, most?: number) => number({ whole: true, least, most });
