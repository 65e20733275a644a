import process from "node:process";
import { Command, InvalidArgumentError, Option } from "commander";
import { createReporter, type RunEvent } from "@hone/client/run";
import { HoneError, numberReader } from "@hone/core";
import { collectDisagreements } from "../train-judge/disagreements.ts";
import type { JudgeMode } from "../train-judge/judge-case.ts";
import { judgeTrainingText, type JudgeMethod } from "../train-judge/report.ts";
import type { JudgeTrainingEvent } from "../train-judge/options.ts";
import { trainJudge } from "../train-judge/train-judge.ts";

interface Given {
  data: string;
  mode: JudgeMode;
  method: JudgeMethod;
  model: string;
  heldOut?: string;
  heldOutShare?: number;
  out?: string;
  seed: number;
  parity?: boolean;
  answerTokens?: number;
  lr?: number;
  epochs?: number;
  batchSize?: number;
  steps?: number;
  groupsPerStep?: number;
  groupSize?: number;
  concurrency?: number;
  shuffleLabels?: boolean;
  ungated?: boolean;
  json?: boolean;
}

const whole = (least: number) => numberReader({ whole: true, least }, InvalidArgumentError);
const above0 = numberReader({ above: 0 }, InvalidArgumentError);
const modes = ["pointwise", "pairwise"];

function readGiven(args: readonly string[]): Given {
  return new Command("npx @hone/recipes train-judge")
    .description(
      "Trains a judge from labelled answers, and measures it on held-out ones before and after. The same command goes on where it was cut off.",
    )
    .showHelpAfterError("--help lists all options.")
    .requiredOption("--data <file>", "labelled answers in OpenJudge's schema, JSONL or Parquet")
    .addOption(
      new Option("--mode <mode>", "one answer from 0 to 4, or which of two is better")
        .choices(modes)
        .makeOptionMandatory(),
    )
    .addOption(
      new Option("--method <method>", "by rewards, by imitation, or a score beside the adapter")
        .choices(["grpo", "sft", "bradley-terry"])
        .makeOptionMandatory(),
    )
    .requiredOption("--model <name>", "the judge's name on the server")
    .option("--held-out <file>", "a set of its own to measure by")
    .option("--held-out-share <p>", "or this share of the conversations (default: 0.2)", above0)
    .option("--out <folder>", "the run's files (default: runs/ and the name)")
    .option("--seed <n>", "of split, orders, adapter and steps", whole(0), 0)
    .option("--lr <rate>", "learning rate (default: 1e-4)", above0)
    .option("--answer-tokens <n>", "grpo, sft: tokens of a judgement (default: 1024)", whole(1))
    .option("--parity", "grpo, sft: reads answers as OpenJudge does, with credit for what is none")
    .option("--steps <n>", "grpo: training steps (default: 20)", whole(0))
    .option("--groups-per-step <n>", "grpo: cases of a step (default: 8)", whole(1))
    .option("--group-size <n>", "grpo: judgements of each (default: 8)", whole(2))
    .option("--concurrency <n>", "grpo: judgements at once (default: 32)", whole(1))
    .option("--epochs <n>", "sft, bradley-terry: passes over the data (default: 1)", whole(1))
    .option("--batch-size <n>", "sft, bradley-terry: cases of a step (default: 16)", whole(1))
    .option("--shuffle-labels", "the control: labels that say nothing")
    .option("--ungated", "allow few held-out cases, and exit with 0 whatever came of it")
    .option("--json", "prints the report as JSON")
    .helpOption("-h, --help", "show this")
    .parse([...args], { from: "user" })
    .opts<Given>();
}

/** 0 if the judge got better by more than chance explains, or if that does not matter (--ungated), otherwise 1. */
export async function trainJudgeCommand(
  args: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  const given = readGiven(args);
  const { data, mode, method, model: name, seed, json, lr: learningRate } = given;
  const { steps, groupsPerStep, groupSize, concurrency } = given;
  const run = Object.fromEntries(
    Object.entries({ steps, groupsPerStep, groupSize, concurrency }).filter(
      ([, value]) => value !== undefined,
    ),
  );
  const [stray] = Object.keys(run);
  if (stray !== undefined && method !== "grpo") {
    const flag = `--${stray.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw new HoneError(`${flag} is an option of the method grpo alone. Leave it out.`, {
      ...{ code: "invalid_config", param: stray },
    });
  }
  const { heldOut, heldOutShare, out, parity, answerTokens, epochs, batchSize, ungated } = given;
  const report = await trainJudge({
    ...{ data, mode, method, name, seed, heldOut, heldOutShare, out, parity, answerTokens },
    ...{ learningRate, epochs, batchSize, shuffleLabels: given.shuffleLabels, signal },
    // What it does to the exit code it does whatever the method.
    ...(method !== "bradley-terry" && { ungated }),
    ...(Object.keys(run).length > 0 && { run }),
    onEvent: reporter(),
  });
  console.log(json ? JSON.stringify(report, null, 2) : judgeTrainingText(report));
  return report.outcome === "learnt" || ungated ? 0 : 1;
}

/** On standard error: the report alone goes to standard output. */
function reporter(): (event: JudgeTrainingEvent) => void {
  const report = createReporter(process.stderr);
  return (event) => {
    if (event.type !== "learning") {
      report(event satisfies RunEvent);
      return;
    }
    const { step, steps, loss, policy } = event;
    process.stderr.write(
      `step ${step}/${steps} | loss ${loss?.toFixed(4) ?? "none"} | ${policy}\n`,
    );
  };
}

/** 0 if there are disagreements, 1 if there is none. */
export async function collectDisagreementsCommand(args: readonly string[]): Promise<number> {
  const program = new Command("npx @hone/recipes collect-disagreements")
    .description(
      "Writes where a judge and gold, or two judges, differ on a run's outputs, as data for train-judge.",
    )
    .showHelpAfterError("--help lists all options.")
    .argument("<files...>", "recorded groups: runs/NAME/trajectories/step-*.jsonl")
    .requiredOption("--truth <metric>", 'who is right: "reward", or a metric such as gold_reward')
    .option("--judge <metric>", "the judge that is to learn", "reward")
    .addOption(
      new Option("--mode <mode>", "outputs, or pairs of them").choices(modes).default("pairwise"),
    )
    .option("--least <x>", "pointwise: by how much they differ", above0, 0.25)
    .option("--per-group <n>", "kept of one group", whole(1), 4)
    .requiredOption("--out <file>", "JSONL in OpenJudge's schema")
    .helpOption("-h, --help", "show this")
    .parse([...args], { from: "user" });
  const options = program.opts<{
    truth: string;
    judge: string;
    mode: JudgeMode;
    least: number;
    perGroup: number;
    out: string;
  }>();
  const { records, compared, differ } = await collectDisagreements({
    ...{ ...options, groups: program.args },
  });
  const what = options.mode === "pairwise" ? "pairs" : "outputs";
  console.log(
    `They differ on ${differ} of ${compared} ${what}; ${records.length} stand in ${options.out}.`,
  );
  return records.length > 0 ? 0 : 1;
}
