import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { Hone } from "@hone/client";
import { readTypeScript } from "@hone/client/run";
import { goldSources, goodTeacher, type GoodTeacherEvent } from "../good-teacher/pipeline.ts";
import {
  goodTeacherDefaults,
  scorerFileOf,
  smallSetSettings,
  type GoodTeacherSettings,
} from "../good-teacher/settings.ts";
import { teacherTable } from "../good-teacher/table.ts";
import * as options from "./good-teacher-options.ts";
import { writeSmallSet } from "./good-teacher-small-set.ts";

interface Given extends options.GivenSettings {
  preferences?: string;
  scorer?: string;
  examples?: string;
  out: string;
  name: string;
  shares: number[];
  gold: boolean;
  sftEpochs: number;
  sftBatchSize: number;
  sftLr: number;
  rmEpochs: number;
  rmBatchSize: number;
  rmLr: number;
}

/** `good-teacher`: all stages on one set, and the table. */
export function runCommand(signal: AbortSignal): Command {
  const command = new Command("run")
    .description(
      "All stages in order, and the paper's table: on-policy share, variance, accuracy, combined score, true gain. Without --preferences on a small set that a script makes.",
    )
    .option("--preferences <file>", "preferences in UltraFeedback's schema, JSONL or Parquet")
    .option(
      "--scorer <name>",
      "the ground truth: ./scorer.ts#export or rm:NAME; of the small set its own",
    )
    .option(
      "--examples <file>",
      "conversations that the first policy imitates (default: the better answers of the preferences)",
    )
    .option("--out <folder>", "where all files go", "good-teacher")
    .option("--name <name>", "models are called by it: NAME-sft, NAME-rm-50", "good-teacher")
    .option("--shares <list>", "on-policy shares, a reward model for each", shareList, [0, 0.5, 1])
    .option("--no-gold", "leaves out the ground truth, and the ground truth made flat")
    .option("--pairs <n>", "of each reward model (default: as many as there are)", options.whole(1))
    .option(
      "--concurrency <n>",
      "rollouts and scorings at once",
      options.whole(1),
      goodTeacherDefaults.concurrency,
    )
    .helpOption("-h, --help", "show this")
    .exitOverride()
    .showHelpAfterError("--help lists all options.");
  options.withSplits(command);
  options.withSampling(options.withSamples(command));
  options.withSupervised(command, "sft", "sft-");
  options.withCentering(options.withSupervised(command, "rewardModel", "rm-"));
  options.withSeed(options.withPolicy(command));
  return command.action(async (given: Given) => await runAll(given, command, signal));
}

async function runAll(given: Given, command: Command, signal: AbortSignal): Promise<void> {
  const { preferences, scorer, examples, out, name, shares, gold } = given;
  if (preferences === undefined && (scorer ?? examples) !== undefined) {
    command.error("error: --scorer and --examples are for the --preferences that they belong to");
  }
  if (preferences !== undefined && scorer === undefined) {
    command.error("error: --preferences needs --scorer, which says what an answer is worth");
  }
  const set =
    preferences === undefined
      ? await writeSmallSet(join(out, "small-set"), given.seed)
      : { preferences, scorer: scorer as string, ...(examples && { examples }) };
  const file = scorerFileOf(set.scorer);
  if (file !== undefined) await readTypeScript(file);
  const { rows } = await goodTeacher({
    ...{ hone: new Hone(), out, name, ...set, shares, others: gold ? goldSources : {} },
    ...{ settings: settingsOf(given, command), signal, onEvent: told },
  });
  console.log(`${teacherTable(rows)}\n\nFiles: ${out}`);
}

/** What is not given is as the small set wants it, or as the paper has it. */
function settingsOf(given: Given, command: Command): GoodTeacherSettings {
  const small = given.preferences === undefined;
  const base = small ? smallSetSettings : goodTeacherDefaults;
  const or = <Value>(name: keyof Given, value: Value): Value =>
    command.getOptionValueSource(name) === "default" ? value : (given[name] as Value);
  return {
    preferences: given.preferenceLimit,
    pairs: given.pairs ?? base.pairs,
    dropTies: !given.keepTies,
    testShare: or("testShare", base.testShare),
    policyShare: or("policyShare", base.policyShare),
    temperature: or("temperature", base.temperature),
    answerTokens: or("answerTokens", base.answerTokens),
    concurrency: or("concurrency", base.concurrency),
    seed: given.seed,
    sft: {
      epochs: or("sftEpochs", base.sft.epochs),
      batchSize: or("sftBatchSize", base.sft.batchSize),
      learningRate: or("sftLr", base.sft.learningRate),
    },
    samples: {
      pairs: or("pairSamples", base.samples.pairs),
      measured: or("measuredSamples", base.samples.measured),
    },
    rewardModel: {
      epochs: or("rmEpochs", base.rewardModel.epochs),
      batchSize: or("rmBatchSize", base.rewardModel.batchSize),
      learningRate: or("rmLr", base.rewardModel.learningRate),
      centering: or("centering", base.rewardModel.centering),
    },
    policy: {
      objective: given.objective,
      beta: or("beta", base.policy.beta),
      steps: or("steps", base.policy.steps),
      groupsPerStep: or("groupsPerStep", base.policy.groupsPerStep),
      groupSize: or("groupSize", base.policy.groupSize),
      learningRate: or("policyLr", base.policy.learningRate),
      eps: given.policyEps ?? base.policy.eps,
      maxGradNorm: given.policyMaxGradNorm ?? base.policy.maxGradNorm,
      testSamples: or("testSamples", base.policy.testSamples),
      train: base.policy.train,
    },
  };
}

function shareList(value: string): number[] {
  const shares = value.split(",").map((one) => options.share(one.trim()));
  const keys = new Set(shares.map((share) => Math.round(100 * share)));
  if (keys.size === shares.length) return shares;
  throw new InvalidArgumentError("Shares differ by whole percents.");
}

function told(event: GoodTeacherEvent): void {
  if (event.type === "scored") options.onScored(event.done, event.total);
  else if (event.type === "supervised") options.onStep(event.event);
  else if (event.type === "run") options.onRun(event.event);
  else if (event.type === "stage") options.progressed(event.file);
  else if (event.type === "stage-ended") {
    options.progressed("");
    const how = event.made ? `${event.seconds.toFixed(0)} s` : "made before";
    process.stderr.write(`${event.file}: ${how}\n`);
  }
}
