import { join, resolve } from "node:path";
import { Hone, HoneError, type ComparisonModel } from "@hone/client";
import { Command, InvalidArgumentError } from "commander";
import { comparisonModel } from "./providers.ts";
import { createReporter, hasLearnt, stoppedText, summaryText } from "./report.ts";
import { runTraining } from "./train-run.ts";

const program = new Command("2048")
  .description("Trains an agent that plays 2048, and shows what it learnt.")
  .option(
    "--name <model>",
    "name of the model; one that there is goes on where it was",
    `2048-${new Date().toISOString().replaceAll(/[:.]/g, "-").toLowerCase()}`,
  )
  .option("--size <cells>", "cells of a side", wholeFrom(2, 26), 3)
  .option("--target <tile>", "the tile that wins", wholeFrom(8), 64)
  .option("--steps <n>", "training steps of the whole run", wholeFrom(0), 10)
  .option("--groups-per-step <n>", "groups of games per step", wholeFrom(1), 8)
  .option("--group-size <n>", "games of one seed", wholeFrom(2), 8)
  .option(
    "--eval-every <n>",
    "steps between held-out scores; 0 for none on the way",
    wholeFrom(0),
    5,
  )
  .option("--eval-seeds <n>", "held-out games of a score on the way", wholeFrom(2), 64)
  .option(
    "--verdict-seeds <n>",
    "held-out games of the verdict, before and after",
    wholeFrom(2),
    256,
  )
  .option(
    "--compare <provider/model>",
    "another model that plays them: openai/… or openrouter/…",
    other,
    [],
  )
  .option("--seed <n>", "of the adapter and of the order of the games", wholeFrom(0, 1_000_000), 0)
  .option("--shuffle-rewards", "the control: rewards change places within their group", false)
  .option("--ungated", "exit with 0 whatever the verdict")
  .option(
    "--answer-tokens <n>",
    "tokens that an answer may have: more for a model that thinks first",
    wholeFrom(1),
    8,
  )
  .option("--concurrency <n>", "games at once", wholeFrom(1), 64)
  .option("--lr <rate>", "learning rate (2e-3 suits the base of a million parameters)", rate, 2e-3)
  .option("--last-rate <share>", "share of the learning rate at the last step", share, 0.1)
  .option("--out <folder>", "where metrics and trajectories go (default: runs/ and the name)")
  .option("--server-data <folder>", "the server's data folder, to say where the adapter lies in it")
  .parse();

const options = program.opts<{
  name: string;
  size: number;
  target: number;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  evalEvery: number;
  evalSeeds: number;
  verdictSeeds: number;
  compare: ComparisonModel[];
  seed: number;
  shuffleRewards: boolean;
  ungated?: boolean;
  answerTokens: number;
  concurrency: number;
  lr: number;
  lastRate: number;
  out?: string;
  serverData?: string;
}>();
const serverData = options.serverData === undefined ? null : resolve(options.serverData);

const stop = new AbortController();
process.on("SIGINT", interrupt);
process.on("SIGTERM", interrupt);
function interrupt(): void {
  if (stop.signal.aborted) process.exit(130);
  process.stderr.write(
    "\nStopping: closing the games that are open. Once more to leave at once.\n",
  );
  stop.abort();
}

const reporter = createReporter(process.stdout);
try {
  const run = {
    ...options,
    out: resolve(options.out ?? join("runs", options.name)),
    learningRate: options.lr,
    others: options.compare,
  };
  const summary = await runTraining(new Hone(), run, reporter, stop.signal);
  reporter.close();
  console.log(summaryText(summary, options.target, serverData));
  if (!hasLearnt(summary) && !options.ungated) process.exitCode = 1;
} catch (error) {
  reporter.close();
  if (stop.signal.aborted) {
    console.error(stoppedText(options.name, serverData));
    process.exitCode = 130;
  } else if (HoneError.isInstance(error)) {
    console.error(`${error.code}: ${error.message}`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}

function other(text: string, previous: ComparisonModel[]): ComparisonModel[] {
  try {
    return [...previous, comparisonModel(text)];
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

function wholeFrom(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number of at least ${least}.`);
  };
}

function share(text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 1) return value;
  throw new InvalidArgumentError("It must be a number above 0 and at most 1.");
}

function rate(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError("It must be a number above 0.");
}
