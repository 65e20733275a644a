import process from "node:process";
import { InvalidArgumentError, type Command } from "commander";
import type { SupervisedEvent } from "@hone/client";
import { createReporter, readTypeScript } from "@hone/client/run";
import { numberReader } from "@hone/core";
import type { ExaminedJudge } from "../doctor/judge.ts";
import { namedJudge } from "../doctor/judges.ts";
import { goodTeacherDefaults, scorerFileOf } from "../good-teacher/settings.ts";
import type { RewardSource } from "../good-teacher/reward-source.ts";

const defaults = goodTeacherDefaults;

export const whole = (least: number) => numberReader({ whole: true, least }, InvalidArgumentError);
const above0 = numberReader({ above: 0 }, InvalidArgumentError);
export const share = numberReader({ least: 0, most: 1 }, InvalidArgumentError);
const atLeast0 = numberReader({ least: 0 }, InvalidArgumentError);

export const withSeed = (command: Command): Command =>
  command.option("--seed <n>", "of all that is drawn", whole(0), defaults.seed);
export const withOut = (command: Command, what: string): Command =>
  command.requiredOption("--out <file>", what);
export const withScorer = (command: Command): Command =>
  command
    .requiredOption(
      "--scorer <name>",
      "the ground truth: ./scorer.ts#export, rm:NAME, or a judge as of the judge doctor",
    )
    .option("--concurrency <n>", "items at the scorer at once", whole(1), defaults.concurrency);

export const withSplits = (command: Command): Command =>
  command
    .option("--keep-ties", "keeps pairs whose answers the scorer gives the same score")
    .option("--test-share <p>", "of the prompts, to measure on", share, defaults.testShare)
    .option(
      "--policy-share <p>",
      "of the other prompts, to train policies on; reward models get the rest",
      share,
      defaults.policyShare,
    )
    .option("--preference-limit <n>", "takes so many preferences, drawn by the seed", whole(1));

export const withSampling = (command: Command): Command =>
  command
    .option("--temperature <t>", "of what policies say", above0, defaults.temperature)
    .option("--answer-tokens <n>", "tokens an answer may have", whole(1), defaults.answerTokens);

export const withSamples = (command: Command): Command =>
  command
    .option(
      "--pair-samples <n>",
      "answers to a prompt of which a pair is made, the best and the worst",
      whole(2),
      defaults.samples.pairs,
    )
    .option(
      "--measured-samples <n>",
      "answers to a prompt that is trained or measured on",
      whole(2),
      defaults.samples.measured,
    );

/** `epochs`, `batchSize` and `learningRate` of a supervised stage, behind its name where several stand together. */
export function withSupervised(
  command: Command,
  of: "sft" | "rewardModel",
  prefix: "" | "sft-" | "rm-",
): Command {
  const { epochs, batchSize, learningRate } = defaults[of];
  const whom = of === "sft" ? "of the imitation" : "of a reward model";
  return command
    .option(`--${prefix}epochs <n>`, `passes over the examples ${whom}`, whole(1), epochs)
    .option(`--${prefix}batch-size <n>`, `examples of a step ${whom}`, whole(1), batchSize)
    .option(`--${prefix}lr <rate>`, `learning rate ${whom}`, above0, learningRate);
}

export const withCentering = (command: Command): Command =>
  command.option(
    "--centering <weight>",
    "of the squared sum of a pair's scores",
    atLeast0,
    defaults.rewardModel.centering,
  );

export const withSource = (command: Command): Command =>
  command
    .requiredOption(
      "--reward <name>",
      "gold (the ground truth), a file of reward-model, rm:NAME, or ./judge.ts#export",
    )
    .option("--reward-scale <x>", "multiplies the scores of a share of the prompts", above0, 1)
    .option("--reward-scale-share <p>", "the share of the prompts", share, 1)
    .option("--reward-scale-seed <n>", "of the prompts' coins", whole(0), 0);

export const withPolicy = (command: Command): Command => {
  const { policy } = defaults;
  return command
    .option("--objective <type>", "rloo or grpo", objective, policy.objective)
    .option("--beta <weight>", "of the KL to the first policy", atLeast0, policy.beta)
    .option("--steps <n>", "of the policy gradient", whole(1), policy.steps)
    .option("--groups-per-step <n>", "prompts of a step", whole(1), policy.groupsPerStep)
    .option("--group-size <n>", "answers to a prompt of a step", whole(2), policy.groupSize)
    .option("--policy-lr <rate>", "learning rate of the policy", above0, policy.learningRate)
    .option(
      "--policy-eps <x>",
      "AdamW's epsilon; far above the gradients (1) steps are as large as the rewards are (default: the server's, below them)",
      above0,
    )
    .option(
      "--policy-max-grad-norm <x>",
      "what the gradient's norm is cut to (default: the server's, 1)",
      above0,
    )
    .option(
      "--test-samples <n>",
      "answers to each test prompt, before and after",
      whole(1),
      policy.testSamples,
    );
};

function objective(value: string): "rloo" | "grpo" {
  if (value === "rloo" || value === "grpo") return value;
  throw new InvalidArgumentError("It is rloo or grpo.");
}

/** Of the options that both the whole run and the stages take. */
export interface GivenSettings {
  keepTies?: boolean;
  testShare: number;
  policyShare: number;
  preferenceLimit?: number;
  pairs?: number;
  pairSamples: number;
  measuredSamples: number;
  temperature: number;
  answerTokens: number;
  centering: number;
  objective: "rloo" | "grpo";
  beta: number;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  policyLr: number;
  policyEps?: number;
  policyMaxGradNorm?: number;
  testSamples: number;
  concurrency: number;
  seed: number;
}

export interface GivenSource {
  reward: string;
  rewardScale: number;
  rewardScaleShare: number;
  rewardScaleSeed: number;
}

export function sourceOf(given: GivenSource): RewardSource {
  const { reward, rewardScale: scale, rewardScaleShare: scaleShare } = given;
  return { reward, scale, scaleShare, scaleSeed: given.rewardScaleSeed };
}

/** A judge of one's own may be in a TypeScript file. */
export async function judgeNamed(name: string): Promise<ExaminedJudge> {
  const file = scorerFileOf(name);
  if (file !== undefined) await readTypeScript(file);
  return await namedJudge(name);
}

/** Says how far a stage is, on a terminal. */
export function progressed(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`);
}

export const onScored = (done: number, total: number): void => progressed(`${done}/${total}`);

export function onStep(event: SupervisedEvent): void {
  if (event.type === "step") {
    progressed(`step ${event.step}/${event.steps}, loss ${event.loss?.toFixed(4) ?? "none"}`);
  }
}

export const onRun: ReturnType<typeof createReporter> = createReporter(process.stderr);
