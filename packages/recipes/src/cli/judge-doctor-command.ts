import { readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { Command, InvalidArgumentError } from "commander";
import { gather, Hone, readGroups, type Model, type Policy } from "@hone/client";
import { loadTask, taskRollout, type LoadedTask } from "@hone/client/run";
import {
  HoneError,
  mulberry32,
  newId,
  numberReader,
  requireModelRef,
  shuffledIndices,
  type TrajectoryGroup,
} from "@hone/core";
import { examineJudges, type JudgeReport } from "../doctor/examine.ts";
import type { ExaminedJudge } from "../doctor/judge.ts";
import { functionJudge, namedJudge } from "../doctor/judges.ts";
import { requireKnownJudge } from "./own-judges.ts";
import { reportText } from "../doctor/report-text.ts";
import type { JudgeMode } from "../train-judge/judge-case.ts";
import { trainedJudge } from "../train-judge/trained-judge.ts";

interface Given {
  task?: string;
  groups?: string;
  judges: string;
  scenarios: number;
  samples: number;
  passes: number;
  model?: string;
  gold: string;
  rubric?: string;
  temperature?: number;
  seed: number;
  concurrency: number;
  judgeTokens?: number;
  timeout: number;
  out?: string;
  json?: boolean;
}

const whole = (least: number, most?: number) =>
  numberReader({ whole: true, least, most }, InvalidArgumentError);

function readGiven(args: readonly string[]): Given {
  const program = new Command("npx @hone/recipes judge-doctor")
    .description(
      "Has judges score on-policy outputs several times, and says whether they can teach the policy.",
    )
    .showHelpAfterError("--help lists all options.")
    .requiredOption(
      "--judges <names>",
      "openai/o4-mini, hone/MODEL, rm:NAME, pointwise:NAME or pairwise:NAME of train-judge, http://host:port/v1#MODEL (key: JUDGE_API_KEY) or ./judge.ts#export, with commas between them",
    )
    .option("--task <file>", "a file whose default export is what defineTask gives: it is played")
    .option("--groups <file>", "instead of --task: recorded groups, as a run keeps them (JSONL)")
    .option(
      "--model <name>",
      "who plays: a model of the server, or NAME@N (default: the untrained base)",
    )
    .option("--scenarios <n>", "scenarios, of those to train on", whole(1), 50)
    .option("--samples <n>", "outputs of each; fewer than 8 say little", whole(2), 8)
    .option("--passes <n>", "judgings of each group, in other orders", whole(2, 16), 2)
    .option(
      "--gold <metric>",
      'what an output is worth in truth: "reward" of the rollout, one of its metrics, or "none"',
      "reward",
    )
    .option("--rubric <file>", "RULER's rubric, instead of the default one")
    .option("--judge-tokens <n>", "tokens an answer of a judge may have (max_tokens)", whole(1))
    .option("--timeout <seconds>", "of one request to a judge", whole(1), 120)
    .option(
      "--temperature <t>",
      "of the outputs (default: the task's)",
      numberReader({ least: 0 }, InvalidArgumentError),
    )
    .option("--seed <n>", "of scenarios, orders and intervals", whole(0), 0)
    .option("--concurrency <n>", "rollouts at once", whole(1), 32)
    .option("--out <file>", "writes the report as JSON")
    .option("--json", "prints the report as JSON")
    .helpOption("-h, --help", "show this")
    .parse([...args], { from: "user" });
  return program.opts<Given>();
}

/** 0 if every judge can teach, 1 if one cannot. */
export async function judgeDoctorCommand(
  args: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  const given = readGiven(args);
  const { passes, seed, gold, json } = given;
  const parameters = given.judgeTokens === undefined ? {} : { max_tokens: given.judgeTokens };
  const rubric = given.rubric === undefined ? undefined : await readFile(given.rubric, "utf8");
  const apiKey = process.env["JUDGE_API_KEY"];
  // First: it brings what reads TypeScript, for a judge in a file too.
  const task = given.task === undefined ? null : (await loadTask(given.task)).task;
  const judges: ExaminedJudge[] = [];
  const names = given.judges.split(",").map((one) => one.trim());
  for (const name of names) {
    // The key is for servers of one's own: a provider's own key comes from its own variable.
    const own = /^https?:/.test(name) && apiKey ? { apiKey } : {};
    const timeoutMs = 1000 * given.timeout;
    const deadlineMs = passes * 5 * timeoutMs;
    const ruler = { parameters, timeoutMs, deadlineMs, ...(rubric && { rubric }), ...own };
    judges.push(trainedJudgeNamed(name, given.judgeTokens) ?? (await namedJudge(name, { ruler })));
  }
  const before = given.groups === undefined ? null : await recorded(given);
  if (!before && !task) throw invalid("Give --task, or --groups with recorded ones.", "task");
  for (const [at, name] of names.entries()) await requireKnownJudge(name, judges[at]!, signal);
  const groups = before ?? (await played(given, task!, signal));
  const reports = await examineJudges(groups, judges, {
    ...{ passes, seed, signal },
    gold: (trajectory) =>
      gold === "none"
        ? null
        : gold === "reward"
          ? trajectory.reward
          : (trajectory.metrics[gold] ?? null),
    onProgress: (done, total, judge) => progress(`${judge}: ${done}/${total} groups judged`),
  });
  progress("");
  if (given.out !== undefined) {
    await writeFile(given.out, `${JSON.stringify(written(reports, groups), null, 2)}\n`);
  }
  console.log(
    json ? JSON.stringify(written(reports, groups), null, 2) : `${reportText(reports)}\n`,
  );
  return reports.some(({ verdict }) => verdict.level === "fail") ? 1 : 0;
}

/** `pointwise:NAME` or `pairwise:NAME`: a judge that train-judge made, asked in its own format. */
function trainedJudgeNamed(name: string, answerTokens: number | undefined): ExaminedJudge | null {
  const [, mode, model = ""] = /^(pointwise|pairwise):(.+)$/.exec(name) ?? [];
  if (mode === undefined) return null;
  const { judge } = trainedJudge({ model, mode: mode as JudgeMode, answerTokens });
  return functionJudge(name, judge);
}

function written(reports: readonly JudgeReport[], groups: readonly TrajectoryGroup[]) {
  const policies = groups.flatMap(({ trajectories }) => trajectories.map(({ policy }) => policy));
  return { policies: [...new Set(policies)], groups: groups.length, judges: reports };
}

async function recorded(given: Given): Promise<TrajectoryGroup[]> {
  const { groups: file = "", task } = given;
  if (task !== undefined) throw invalid("Give --task or --groups, not both.", "groups");
  const groups = await readGroups(file);
  const compared = groups.filter(({ trajectories }) => trajectories.length > 1);
  if (compared.length > 0) return drawn(compared, given);
  throw invalid(`${file} has no group of two outputs or more to compare.`, "groups");
}

/** Of all of them: a task often lists its scenarios by kind. */
function drawn<One>(all: readonly One[], { scenarios, seed }: Given): One[] {
  const order = shuffledIndices(all.length, mulberry32(seed));
  return order.slice(0, scenarios).map((at) => all[at] as One);
}

/** On-policy outputs: rollouts of mode "eval", so that none of them is ever trained on. */
async function played(
  given: Given,
  task: LoadedTask["task"],
  signal: AbortSignal,
): Promise<TrajectoryGroup[]> {
  const hone = new Hone();
  if (given.model !== undefined) {
    return await playedBy(await policyOf(hone, given.model, signal), { given, task, signal });
  }
  // The base has no name of its own to play under.
  const name = `judge-doctor-${newId("op").slice(-12).toLowerCase()}`;
  try {
    const model = await hone.model({ name }, { signal });
    return await playedBy({ model, policy: model.at(0) }, { given, task, signal });
  } finally {
    await discard(hone, name);
  }
}

async function playedBy(
  { model, policy }: { model: Model; policy: Policy },
  { given, task, signal }: { given: Given; task: LoadedTask["task"]; signal: AbortSignal },
): Promise<TrajectoryGroup[]> {
  const { maxModelLen: contextTokens } = await model.info({ signal });
  const rollout = taskRollout(task, { contextTokens, temperature: given.temperature });
  const scenarios = drawn(task.train, given);
  const groups = await gather(policy, rollout, scenarios, {
    ...{ groupSize: given.samples, mode: "eval", concurrency: given.concurrency, signal },
    ...{ maxExceptions: 0.1, retries: 1 },
    onProgress: ({ done, total }) => progress(`${policy.name}: ${done}/${total} outputs`),
  });
  progress("");
  // Where all but one have failed, nothing is left to compare: that says nothing of a judge.
  return groups.filter(({ trajectories }) => trajectories.length > 1);
}

/** Also after an interruption, so with a limit of its own. A model that stays is told of, and can be deleted by hand. */
async function discard(hone: Hone, name: string): Promise<void> {
  try {
    await hone.deleteModel(name, { signal: AbortSignal.timeout(60_000) });
  } catch (error) {
    // Interrupted before it was made.
    if (HoneError.isInstance(error) && error.code === "model_not_found") return;
    const why = error instanceof Error ? error.message : String(error);
    console.error(`The doctor's model ${name} could not be deleted: ${why}`);
  }
}

/** A model that is named has to be there: one that a mistyped name makes would be the base. */
async function policyOf(
  hone: Hone,
  name: string,
  signal: AbortSignal,
): Promise<{ model: Model; policy: Policy }> {
  const ref = requireModelRef(name);
  const model = await hone.model({ name: ref.model, create: false }, { signal });
  return { model, policy: ref.step === null ? model : model.at(ref.step) };
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`);
}

function invalid(message: string, param: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param });
}
