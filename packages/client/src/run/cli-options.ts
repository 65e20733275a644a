import { Command, InvalidArgumentError, Option } from "commander";
import { numberReader } from "@hone/core";
import type { Schedule } from "../training/schedule.ts";
import {
  alarmActions,
  alarmCodes,
  secondaryGoals,
  stopReasons,
  type AlarmCode,
  type Budget,
  type Goals,
  type GoalsGiven,
  type StopReason,
} from "../stopping/stop-options.ts";
import { otherModels } from "./other-models.ts";
import { readSettings, settingNames, type RunOptions, type RunSettings } from "./run-options.ts";
import type { Task, TaskSettings } from "./task.ts";

/** What the command line says, read for one task. */
export interface CommandLine {
  run: Omit<RunOptions<TaskSettings>, "name"> & { name?: string | undefined };
  resume: boolean;
  serverData: string | undefined;
}

/** The options of `train FILE`, with the task's own settings among them; ends the process where one is wrong. */
export function readCommandLine(
  file: string,
  task: Pick<Task<unknown>, "settings" | "options" | "heldOut">,
  args: string[],
): CommandLine {
  const defaults = readSettings(task, {});
  const own = Object.entries(task.settings ?? {});
  const program = new Command(`npx @hone/client train ${file}`)
    .description("Trains a model on the task, and shows what it learnt.")
    .showHelpAfterError("--help lists all options.")
    .addHelpOption(new Option("-h, --help", "show this").helpGroup("The run:"))
    .optionsGroup("The run:")
    .option(
      "--name <model>",
      "the model's name; one that exists learns on (default: of file and time)",
    )
    .option("--out <folder>", "where metrics and trajectories go (default: runs/ and the name)")
    .option("--resume", "go on with the run in --out, or with the newest one of the task")
    .option("--seed <n>", "of adapter and order of scenarios", whole(0, 1e6), defaults.seed)
    .option("--shuffle-rewards", "the control: rewards change places within their group")
    .option(
      "--server-wait <seconds>",
      "how long to wait for a server that goes away, at a time; 0: not at all",
      whole(0),
      defaults.serverWaitMs / 1000,
    )
    .option("--server-data <folder>", "the server's data folder, to say where the adapter lies")
    .optionsGroup("Training:")
    .option("--steps <n>", "training steps of the whole run", whole(0), defaults.steps)
    .option("--groups-per-step <n>", "scenarios of a step", whole(1), defaults.groupsPerStep)
    .option("--group-size <n>", "rollouts of one scenario", whole(2), defaults.groupSize)
    .option(
      "--fill [factor]",
      "draw other scenarios for groups whose rewards are equal, up to so many times (default: 3)",
      (text) => ({ maxFactor: number({ least: 1, most: 100 })(text) }),
    )
    .option("--no-fill", "take --fill back")
    .option("--curriculum", "draw scenarios by their success so far")
    .option("--no-curriculum", "take --curriculum back")
    .option(
      "--overlap [batches]",
      "play so many batches ahead while a step trains (default: 1)",
      (text) => ({ ahead: whole(1, 8)(text) }),
    )
    .option("--no-overlap", "take --overlap back")
    .option("--concurrency <n>", "rollouts at once", whole(1), defaults.concurrency)
    .option(
      "--temperature <t>",
      "of training, and sampled answers",
      number({ above: 0 }),
      defaults.temperature,
    )
    .option("--answer-tokens <n>", "tokens an answer may have", whole(1), defaults.answerTokens)
    .option("--lr <rate>", "learning rate", number({ above: 0 }), defaults.learningRate)
    .addOption(
      new Option("--schedule <name>", "how it falls over the run")
        .choices(["constant", "linear", "cosine"])
        .default(defaults.schedule.type),
    )
    .option(
      "--last-rate <share>",
      `share of it at the last step, where it falls (default: ${defaults.schedule.end ?? 0.1})`,
      number({ above: 0, most: 1 }),
    )
    .option(
      "--train <name=value>",
      "another option of model.train, such as optimizerSteps=2; may be repeated",
      trainOption,
    )
    .optionsGroup("Judging:")
    .addOption(
      new Option("--verdict <how>", "answers that decide: the likeliest, or sampled ones")
        .choices(["greedy", "sampled"])
        .default(defaults.verdict),
    )
    .option("--held-out <n>", "held-out scenarios of the verdict", whole(2), defaults.heldOut)
    .option("--eval-every <n>", "steps between evaluations; 0: none", whole(0), defaults.evalEvery)
    .option("--eval-held-out <n>", "held-out scenarios of those", whole(2), defaults.evalHeldOut)
    .option("--ungated", "allow few held-out scenarios, and exit with 0 whatever the verdict")
    .option("--no-ungated", "take --ungated back")
    .optionsGroup("Stopping:")
    .option("--goal-target <score>", "held-out score to reach", number({}))
    .option(
      "--goal-margin <score>",
      "by how much the base is to be beaten, for certain",
      number({}),
    )
    .option(
      "--goal-win-rate <share>",
      "held-out scenarios to win against the base's answers (.5 to 1)",
      number({ least: 0.5, most: 1 }),
    )
    .option("--goal-plateau <n>", "steps without a rise that make one (default: 10)", whole(10))
    .option(
      "--goal-secondary <goal>",
      "what counts besides: length, latency or cost, or length=40 for the most that it may be; may be repeated",
      secondaryGoal,
    )
    .option(
      "--stop-when <reasons>",
      "which of target, margin, win-rate and plateau end the run, with commas; none: they advise",
      (text) => names(text, stopReasons),
    )
    .option("--budget-usd <dollars>", "the run ends before it costs more", number({ above: 0 }))
    .option(
      "--budget-gpu-seconds <n>",
      "the run ends before it takes more, over all starts",
      number({ above: 0 }),
    )
    .option("--budget-steps <n>", "the run ends after so many of its steps", whole(0))
    .option(
      "--usd-per-hour <price>",
      "of the machine that serves and trains, for --budget-usd",
      number({ least: 0 }),
    )
    .option("--gpus <n>", "that it holds, for --budget-gpu-seconds (default: 1)", whole(1))
    .optionsGroup("Alarms:")
    .addOption(
      new Option("--on-alarm <action>", "what a sign of a gamed reward does")
        .choices(alarmActions)
        .default(defaults.onAlarm),
    )
    .option(
      "--ignore-alarm <names>",
      `not raised, with commas: ${alarmCodes.join(", ")}; none: all are`,
      (text) => names(text, alarmCodes),
    )
    .option("--accept-change", "with --resume: a paused run goes on with the task as it is now")
    .optionsGroup("Other models:")
    .option(
      "--compare <model>",
      "answers the held-out scenarios too: openai/…, openrouter/… or http://host:port/v1#model; may be repeated; none takes back those before",
      (name: string, before: string[] | undefined) => [...(before ?? []), name],
    )
    .option("--compare-key-env <name>", "variable of the key for a URL", "COMPARE_API_KEY")
    .option("--compare-tokens <n>", "--answer-tokens of such models", whole(1))
    .optionsGroup("Settings of the task:");
  for (const [name, value] of own) {
    for (const option of ownOptions(name, value)) program.addOption(option);
  }
  program.parse(args, { from: "user" });
  const given = program.opts<Given>();
  return {
    run: {
      ...(Object.fromEntries(settingNames.map((name) => [name, given[name]])) as Given),
      ...{ name: given.name, out: given.out, ungated: given.ungated ?? false },
      shuffleRewards: given.shuffleRewards ?? false,
      learningRate: given.lr,
      serverWaitMs: Math.round(given.serverWait * 1000),
      schedule: scheduleOf(given, defaults.schedule),
      ...stoppingOf(given),
      acceptChange: given.acceptChange ?? false,
      settings: Object.fromEntries(own.map(([name]) => [name, given[name]])) as TaskSettings,
      compare: readOthers(program, given),
    },
    resume: given.resume ?? false,
    serverData: given.serverData,
  };
}

type Given = Omit<RunSettings, "schedule"> & {
  [name: string]: unknown;
  name?: string;
  out?: string;
  resume?: boolean;
  lr: number;
  serverWait: number;
  schedule: Schedule["type"];
  lastRate?: number;
  shuffleRewards?: boolean;
  ungated?: boolean;
  compare?: string[];
  compareKeyEnv: string;
  compareTokens?: number;
  serverData?: string;
  acceptChange?: boolean;
} & Stopping;

interface Stopping {
  goalTarget?: number;
  goalMargin?: number;
  goalWinRate?: number;
  goalPlateau?: number;
  goalSecondary?: Goals["secondary"];
  stopWhen?: StopReason[];
  budgetUsd?: number;
  budgetGpuSeconds?: number;
  budgetSteps?: number;
  usdPerHour?: number;
  gpus?: number;
  ignoreAlarm?: AlarmCode[];
}

/** What was not given is left to the task. */
function stoppingOf(given: Stopping) {
  const { goalTarget: target, goalMargin: margin, goalWinRate: winRate } = given;
  const { goalPlateau: plateau, goalSecondary: secondary, usdPerHour, gpus } = given;
  const { budgetUsd: usd, budgetGpuSeconds: gpuSeconds, budgetSteps: steps } = given;
  const known = (options: object) =>
    Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return {
    goals: known({ target, margin, winRate, plateau, secondary }) as GoalsGiven,
    budget: known({ usd, gpuSeconds, steps, usdPerHour, gpus }) as Budget,
    ...(given.stopWhen && { stopWhen: given.stopWhen }),
    ...(given.ignoreAlarm && { ignoreAlarms: given.ignoreAlarm }),
  };
}

function names<Name extends string>(text: string, known: readonly Name[]): Name[] {
  if (text === "none") return [];
  return text.split(",").map((one) => {
    const name = known.find((other) => other === one.trim());
    if (name === undefined) {
      throw new InvalidArgumentError(`It must be of ${known.join(", ")}, or none.`);
    }
    return name;
  });
}

/** `length` or `length=40`. */
function secondaryGoal(text: string, before: Goals["secondary"] = {}): Goals["secondary"] {
  const [given = "", limit] = text.split("=");
  const name = secondaryGoals.find((one) => one === given.trim());
  if (name === undefined) {
    throw new InvalidArgumentError(`It must be of ${secondaryGoals.join(", ")}.`);
  }
  return { ...before, [name]: limit === undefined ? true : number({ above: 0 })(limit) };
}

function scheduleOf({ schedule: type, lastRate }: Given, before: Schedule): Schedule {
  return { type, end: lastRate ?? (type === "constant" ? undefined : before.end) };
}

/**
 * A setting `boardSize: 4` is `--board-size 4`. A setting that is true or false has two options, so that a run that
 * goes on can take back what it began with.
 */
export function ownOptions(name: string, value: string | number | boolean): Option[] {
  const words = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  if (typeof value === "boolean") {
    const on = new Option(`--${words}`).default(value);
    return [on, new Option(`--no-${words}`)];
  }
  const option = new Option(`--${words} <value>`).default(value);
  return [typeof value === "number" ? option.argParser(number({})) : option];
}

function readOthers(program: Command, given: Given) {
  const { compare = [], compareKeyEnv: keyVariable, compareTokens: answerTokens } = given;
  // With `--compare none` a run that goes on keeps what it was begun with, which is read together with this.
  for (const [name, option] of [
    ["compareTokens", "--compare-tokens"],
    ["compareKeyEnv", "--compare-key-env"],
  ] as const) {
    if (given.resume || given.compare !== undefined || program.getOptionValueSource(name) !== "cli")
      continue;
    return program.error(`error: ${option} is of --compare. Add that, or leave it out.`);
  }
  try {
    return otherModels(compare, { keyVariable, answerTokens });
  } catch (error) {
    return program.error(`error: --compare: ${(error as Error).message}`);
  }
}

/** `normalizerTokens=32`: what there is and what it may be, `model.train` knows. */
function trainOption(text: string, before: Record<string, unknown> = {}): Record<string, unknown> {
  const [name = "", ...rest] = text.split("=");
  if (!name || rest.length === 0) throw new InvalidArgumentError("Write it as name=value.");
  const value = rest.join("=");
  try {
    return { ...before, [name]: JSON.parse(value) as unknown };
  } catch {
    return { ...before, [name]: value };
  }
}

const number = (range: Parameters<typeof numberReader>[0]) =>
  numberReader(range, InvalidArgumentError);
const whole = (least: number, most?: number) => number({ whole: true, least, most });
