import { readFile } from "node:fs/promises";
import process from "node:process";
import { Command, CommanderError } from "commander";
import { Hone } from "@hone/client";
import { evaluate, normalise } from "../good-teacher/evaluate.ts";
import { generate } from "../good-teacher/generate.ts";
import { imitate, readStart } from "../good-teacher/imitation.ts";
import { mixPairs } from "../good-teacher/pairs.ts";
import { scorerFileOf } from "../good-teacher/settings.ts";
import { trainPolicy } from "../good-teacher/policy.ts";
import { relabel } from "../good-teacher/relabel.ts";
import { trainRewardModel } from "../good-teacher/reward-model.ts";
import { readTeacherRow, teacherTable } from "../good-teacher/table.ts";
import * as options from "./good-teacher-options.ts";
import { runCommand } from "./good-teacher-run.ts";
import { smallSetCommand } from "./good-teacher-small-set.ts";

/** What commander read, by the options' names. A stage has those that it declares. */
interface Given extends options.GivenSource, options.GivenSettings {
  in: string;
  out: string;
  scorer: string;
  sft: string;
  outputs: string;
  normalisation: string;
  model: string;
  evaluations: string[];
  policies: string[];
  onPolicyShare: number;
  epochs: number;
  batchSize: number;
  lr: number;
}

/** 0 once the stage's file is there; wrong options are 2. */
export async function goodTeacherCommand(
  args: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  const program = new Command("npx @hone/recipes good-teacher")
    .description(
      "What makes a reward model a good teacher: the paper's pipeline, as one command or stage by stage. Each stage reads files and makes one. Started again it goes on where it was; a file that is made stays, unless what it was made of has changed: that is an error.",
    )
    .showHelpAfterError("--help lists all commands and options.")
    .helpOption("-h, --help", "show this")
    .exitOverride();
  program.addCommand(runCommand(signal));
  program.addCommand(smallSetCommand());
  addDataStages(program, signal);
  addModelStages(program, signal);
  addMeasures(program, signal);
  try {
    await program.parseAsync(stageNamed(args), { from: "user" });
    return 0;
  } catch (error) {
    // Help and wrong options have been printed.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
}

/** Without a stage it is all of them. */
function stageNamed(args: readonly string[]): string[] {
  const [first] = args;
  const named = first !== undefined && (!first.startsWith("-") || /^(-h|--help)$/.test(first));
  return named ? [...args] : ["run", ...args];
}

function stage(name: string, about: string): Command {
  return new Command(name)
    .description(about)
    .helpOption("-h, --help", "show this")
    .exitOverride()
    .showHelpAfterError("--help lists all options.");
}

function said(out: string, made: boolean): void {
  options.progressed("");
  console.log(made ? `${out} is made.` : `${out} was made before, of the same: nothing to do.`);
}

function addDataStages(program: Command, signal: AbortSignal): void {
  const { withOut, withSeed, withScorer, withSplits, withSampling, withSamples } = options;
  const labels = stage(
    "relabel",
    "Has the scorer say which answer of each pair is better, and deals the prompts out to reward models, policies and the test.",
  ).requiredOption("--in <file>", "preferences in UltraFeedback's schema, JSONL or Parquet");
  withSeed(withSplits(withScorer(withOut(labels, "labelled preferences, JSONL")))).action(
    async (given: Given) => {
      const made = await relabel({
        ...{ input: given.in, out: given.out, seed: given.seed, pairs: given.preferenceLimit },
        ...{
          scorer: await options.judgeNamed(given.scorer),
          scorerFile: scorerFileOf(given.scorer),
        },
        ...{
          dropTies: !given.keepTies,
          testShare: given.testShare,
          policyShare: given.policyShare,
        },
        ...{ signal, concurrency: given.concurrency, onProgress: options.onScored },
      });
      said(given.out, made);
    },
  );
  program.addCommand(labels);

  const answers = stage(
    "generate",
    "Samples the first policy on every prompt, and has the scorer score what it says.",
  )
    .requiredOption("--in <file>", "labelled preferences")
    .requiredOption("--sft <file>", "the first policy, a file of the stage sft");
  withSeed(withSamples(withSampling(withScorer(withOut(answers, "answers, JSONL"))))).action(
    async (given: Given) => {
      const start = await readStart(given.sft);
      const model = await new Hone().model({ name: start.model, seed: start.seed }, { signal });
      const made = await generate({
        ...{ labelled: given.in, out: given.out, start: given.sft, seed: given.seed },
        ...{ policy: model.at(start.step), temperature: given.temperature },
        ...{ answerTokens: given.answerTokens, concurrency: given.concurrency, signal },
        ...{
          scorer: await options.judgeNamed(given.scorer),
          scorerFile: scorerFileOf(given.scorer),
        },
        samples: { pairs: given.pairSamples, measured: given.measuredSamples },
        onProgress: options.onScored,
      });
      said(given.out, made);
    },
  );
  program.addCommand(answers);

  const pairs = stage("pairs", "Mixes pairs of the policy's own answers with given ones.")
    .requiredOption("--in <file>", "labelled preferences")
    .requiredOption("--outputs <file>", "the policy's answers, a file of the stage generate")
    .requiredOption("--on-policy-share <p>", "of the pairs, from 0 to 1", options.share)
    .option(
      "--pairs <n>",
      "so many of them (default: all prompts with both kinds)",
      options.whole(1),
    );
  withSeed(withOut(pairs, "pairs, JSONL")).action(async (given: Given) => {
    const { in: labelled, outputs, out, onPolicyShare, pairs: count, seed } = given;
    said(out, await mixPairs({ labelled, outputs, out, onPolicyShare, pairs: count, seed }));
  });
  program.addCommand(pairs);
}

function addModelStages(program: Command, signal: AbortSignal): void {
  const { withOut, withSeed, withSupervised, withCentering, withPolicy, withSampling } = options;
  const server = () => ({ hone: new Hone(), signal, onStep: options.onStep });
  const sft = stage("sft", "Makes the first policy by imitation.")
    .requiredOption(
      "--in <file>",
      "conversations in OpenAI's format, or labelled preferences, whose better answers are imitated",
    )
    .requiredOption("--model <name>", "the model's name");
  withSeed(withSupervised(withOut(sft, "what it was, JSON"), "sft", "")).action(
    async (given: Given) => {
      const { in: examples, out, model, epochs, batchSize, lr: learningRate, seed } = given;
      const settings = { examples, out, model, epochs, batchSize, learningRate, seed };
      said(out, await imitate({ ...server(), ...settings }));
    },
  );
  program.addCommand(sft);

  const rewardModel = stage(
    "reward-model",
    "Trains a reward model by Bradley-Terry. It begins with the first policy's weights and scores at once, as rm:NAME.",
  )
    .requiredOption("--in <file>", "pairs, a file of the stage pairs")
    .requiredOption("--sft <file>", "the first policy, a file of the stage sft")
    .requiredOption("--model <name>", "the model's name");
  withCentering(
    withSeed(withSupervised(withOut(rewardModel, "what it is called, JSON"), "rewardModel", "")),
  ).action(async (given: Given) => {
    const { in: pairs, out, sft: start, model, epochs, batchSize, lr: learningRate } = given;
    const { centering, seed } = given;
    const settings = { pairs, start, out, model, epochs, batchSize, learningRate, centering, seed };
    said(out, await trainRewardModel({ ...server(), ...settings }));
  });
  program.addCommand(rewardModel);

  const policy = stage(
    "policy",
    "Trains a policy by policy gradient with a reward, and measures it by the ground truth. Its run is in the folder FILE-run.",
  )
    .requiredOption("--in <file>", "labelled preferences: their prompts")
    .requiredOption("--sft <file>", "the first policy, a file of the stage sft")
    .requiredOption("--normalisation <file>", "the reward, a file of the stage normalise")
    .requiredOption("--model <name>", "the model's name");
  withSeed(
    withPolicy(withSampling(options.withScorer(withOut(policy, "what was gained, JSON")))),
  ).action(async (given: Given) => {
    const { in: labelled, sft: start, normalisation, out, model, seed } = given;
    const { objective, beta, steps, groupsPerStep, groupSize, testSamples } = given;
    const { temperature, answerTokens, concurrency } = given;
    const made = await trainPolicy({
      ...{ hone: new Hone(), names: {}, labelled, start, normalisation, out, model, seed },
      ...{ objective, beta, steps, groupsPerStep, groupSize, testSamples },
      ...{ learningRate: given.policyLr, eps: given.policyEps },
      maxGradNorm: given.policyMaxGradNorm,
      ...{ temperature, answerTokens, concurrency, signal, onEvent: options.onRun },
      ...{ scorer: await options.judgeNamed(given.scorer), scorerFile: scorerFileOf(given.scorer) },
    });
    said(out, made);
  });
  program.addCommand(policy);
}

function addMeasures(program: Command, signal: AbortSignal): void {
  const { withOut, withSource, sourceOf } = options;
  const measure = async (given: Given) => {
    // A judge in a TypeScript file is read where the stage asks for it.
    const file = scorerFileOf(given.reward);
    if (file !== undefined) await options.judgeNamed(given.reward);
    return {
      ...{ outputs: given.outputs, out: given.out, source: sourceOf(given), names: {} },
      ...{ signal, onProgress: options.onScored },
    };
  };
  const evaluation = stage(
    "evaluate",
    "Measures a reward on the test prompts: variance within prompts, accuracy on the policy's answers and on given ones.",
  )
    .requiredOption("--in <file>", "labelled preferences")
    .requiredOption("--outputs <file>", "the policy's answers, a file of the stage generate");
  withSource(withOut(evaluation, "the figures, JSON")).action(async (given: Given) => {
    said(given.out, await evaluate({ ...(await measure(given)), labelled: given.in }));
    console.log(await readFile(given.out, "utf8"));
  });
  program.addCommand(evaluation);

  const normalisation = stage(
    "normalise",
    "Mean and deviation of a reward over the first policy's answers: what a policy's rewards are shifted and divided by.",
  ).requiredOption("--outputs <file>", "the policy's answers, a file of the stage generate");
  withSource(withOut(normalisation, "the statistics, JSON")).action(async (given: Given) => {
    said(given.out, await normalise(await measure(given)));
  });
  program.addCommand(normalisation);

  const table = stage("table", "Prints the table of several rewards.")
    .requiredOption("--evaluations <files...>", "files of the stage evaluate")
    .requiredOption("--policies <files...>", "files of the stage policy, in the same order");
  table.action(async ({ evaluations, policies }: Given) => {
    if (evaluations.length !== policies.length) {
      table.error(
        `error: ${evaluations.length} evaluations and ${policies.length} policies are no pairs`,
      );
    }
    const rows = [];
    for (const [at, measured] of evaluations.entries()) {
      const files = { evaluation: measured, policy: policies[at] as string };
      rows.push(await readTeacherRow(measured, files));
    }
    process.stdout.write(`${teacherTable(rows)}\n`);
  });
  program.addCommand(table);
}
