import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Hone, HoneError } from "@hone/client";
import { Command, InvalidArgumentError } from "commander";
import { createReporter, summaryText } from "./report.ts";
import { runTraining } from "./run.ts";
import { loadTask } from "./task-file.ts";
import { requireEnough } from "./verdict.ts";

const program = new Command("inbox")
  .description(
    "Trains a small instruct model to read bills out of mails, and shows what it learnt.",
  )
  .option("--task <file>", "another task: a file with train, heldOut and rollout (docs/inbox.md)")
  .option(
    "--name <model>",
    "name of the model; one that there is goes on where it was",
    `inbox-${new Date().toISOString().replaceAll(/[:.]/g, "-").toLowerCase()}`,
  )
  .option("--steps <n>", "training steps of the whole run", wholeFrom(0), 24)
  .option("--groups-per-step <n>", "groups of rollouts per step", wholeFrom(1), 8)
  .option("--group-size <n>", "rollouts of one scenario", wholeFrom(2), 6)
  .option("--lr <rate>", "learning rate, after three steps of warm-up", positive, 4e-4)
  .option("--last-rate <share>", "share of the learning rate at the last step", share, 0.1)
  .option("--temperature <t>", "of training and of the sampled evaluation", positive, 0.7)
  .option("--answer-tokens <n>", "about the tokens of an answer: scales the loss", wholeFrom(1), 32)
  .option("--micro-batch-tokens <n>", "tokens of a forward and backward", wholeFrom(1), 2048)
  .option("--concurrency <n>", "rollouts at once", wholeFrom(1), 64)
  .option("--seed <n>", "of the adapter and of the order of the scenarios", wholeFrom(0), 0)
  .option("--shuffle-rewards", "the control: rewards change places within their group", false)
  .option("--ungated", "exit with 0 whatever the verdict", false)
  .option("--out <folder>", "where metrics and trajectories go (default: runs/ and the name)")
  .option("--server-data <folder>", "the server's data folder, to say where the adapter lies in it")
  .parse();

const options = program.opts<{
  task?: string;
  name: string;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  lr: number;
  lastRate: number;
  temperature: number;
  answerTokens: number;
  microBatchTokens: number;
  concurrency: number;
  seed: number;
  shuffleRewards: boolean;
  ungated: boolean;
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
    "\nStopping: closing the rollouts that are open. Once more to leave at once.\n",
  );
  stop.abort();
}

try {
  const task = await loadTask(options.task ?? fileURLToPath(new URL("task.ts", import.meta.url)));
  requireEnough(task, options);
  const run = {
    ...options,
    out: resolve(options.out ?? join("runs", options.name)),
    learningRate: options.lr,
  };
  const reporter = createReporter(task.metric, (line) => console.log(line));
  const summary = await runTraining(new Hone(), task, run, reporter, stop.signal);
  console.log(summaryText(summary, serverData));
  if (!summary.learnt && !options.ungated) process.exitCode = 1;
} catch (error) {
  if (stop.signal.aborted) {
    console.error(`Stopped. On the same server, --name ${options.name} goes on from here.`);
    process.exitCode = 130;
  } else if (HoneError.isInstance(error)) {
    console.error(`${error.code}: ${error.message}`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}

function wholeFrom(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`It must be a whole number of at least ${least}.`);
  };
}

function positive(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError("It must be a number above 0.");
}

function share(text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 1) return value;
  throw new InvalidArgumentError("It must be a number above 0 and at most 1.");
}
