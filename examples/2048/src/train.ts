import { join, resolve } from "node:path";
import { Hone, HoneError } from "@hone/client";
import { Command, InvalidArgumentError } from "commander";
import { otherModels, type OtherModel } from "./providers.ts";
import { createReporter, stoppedText, summaryText } from "./report.ts";
import { runTraining } from "./train-run.ts";
import { exitCodeOf, tooFewSeeds } from "./verdict.ts";

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
    "--compare <model>",
    "another model that plays them: openai/…, openrouter/… or http://host:port/v1#model; none takes back those before",
    (name: string, before: string[]) => [...before, name],
    [],
  )
  .option(
    "--compare-key-env <name>",
    "the variable that holds the key of a --compare by URL",
    "COMPARE_API_KEY",
  )
  .option(
    "--compare-tokens <n>",
    "tokens that an answer of such a model may have (default: --answer-tokens)",
    wholeFrom(1),
  )
  .option("--seed <n>", "of the adapter and of the order of the games", wholeFrom(0, 1_000_000), 0)
  .option("--shuffle-rewards", "the control: rewards change places within their group", false)
  .option("--ungated", "exit with 0 whatever the verdict", false)
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
  compare: string[];
  compareKeyEnv: string;
  compareTokens?: number;
  seed: number;
  shuffleRewards: boolean;
  ungated: boolean;
  answerTokens: number;
  concurrency: number;
  lr: number;
  lastRate: number;
  out?: string;
  serverData?: string;
}>();
const few = tooFewSeeds(options.verdictSeeds, options);
if (few !== null) program.error(`error: ${few}`);
const others = readOthers();
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
    others,
  };
  const summary = await runTraining(new Hone(), run, reporter, stop.signal);
  reporter.close();
  console.log(summaryText(summary, options.target, serverData));
  process.exitCode = exitCodeOf(summary.score, options);
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

function readOthers(): OtherModel[] {
  const { compare, compareKeyEnv: keyVariable, answerTokens, compareTokens } = options;
  try {
    return otherModels(compare, { keyVariable, answerTokens: compareTokens ?? answerTokens });
  } catch (error) {
    return program.error(`error: --compare: ${(error as Error).message}`);
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
