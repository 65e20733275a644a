// `pnpm experiment learn` — TRL's GRPOTrainer beside Hone's whole loop: the same base, reward and numbers, the
// held-out score over the wall time of training. docs/learn.md says what is compared and how.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { findEnvironment } from "@hone/server";
import { runHone } from "./learn/hone-run.ts";
import { startHoneServer, type Machine } from "./learn/hone-server.ts";
import { inboxTask } from "./learn/inbox.ts";
import { judge, judgeAdapter, type Judgement } from "./learn/judge.ts";
import { positionKey, positions } from "./learn/move-values.ts";
import { counts, movesTask, type Positions } from "./learn/moves.ts";
import { draw } from "./learn/picture.ts";
import { summaryText } from "./learn/report.ts";
import {
  contenders,
  judgedSteps,
  readJson,
  runFolder,
  stepFolder,
  writeJson,
  type Contender,
  type RunRecord,
  type StepTime,
} from "./learn/run-record.ts";
import { summarise, type JudgedRun } from "./learn/summary.ts";
import type { LearnTask } from "./learn/task.ts";
import { runTrl, type TrlChoices } from "./learn/trl-run.ts";

const help = `pnpm experiment learn [options]

Trains by TRL's GRPOTrainer and by Hone, in turn, and judges the policies of both on held-out scenarios.
What a folder has of finished runs is not made again: the same command goes on where it was cut off.

  --task inbox|2048       default: 2048
  --seeds N               runs of each side, default 3
  --steps N               default: the task's own number
  --out FOLDER            default: runs/learn-TASK
  --threads N             of torch, for both sides, default: all cores
  --sides trl,hone        one of the two alone, to look at it
  --judge-every N         steps between two policies that are judged
  --dtype float32|bfloat16  of SmolLM2, default bfloat16
  --smollm2 FOLDER        where SmolLM2 lies, default: what \`setup --model smollm2\` made
  --trl-rows N            rows of a forward and backward of TRL, default: all samples of a step, 16 on SmolLM2
  --trl-autocast          TRL computes the adapter's products in bfloat16 as well
  --trl-continuous        TRL generates by generate_batch`;

const { values: options } = parseArgs({
  options: {
    task: { type: "string", default: "2048" },
    seeds: { type: "string", default: "3" },
    steps: { type: "string" },
    out: { type: "string" },
    threads: { type: "string", default: String(availableParallelism()) },
    sides: { type: "string", default: contenders.join(",") },
    "judge-every": { type: "string" },
    dtype: { type: "string" },
    smollm2: { type: "string", default: process.env["HONE_SMOLLM2"] },
    "trl-rows": { type: "string" },
    "trl-autocast": { type: "boolean", default: false },
    "trl-continuous": { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (options.help) {
  console.log(help);
  process.exit(0);
}

const out = resolve(options.out ?? join("runs", `learn-${options.task}`));
await mkdir(out, { recursive: true });
const machine: Machine = {
  python: await findEnvironment(),
  threads: whole("threads", options.threads) ?? 1,
};
const choices: TrlChoices = {
  autocast: options["trl-autocast"],
  continuousBatching: options["trl-continuous"],
};
const task = withOptions(await taskNamed(options.task));
await requireSameSettings();
const sides = contenders.filter((one) => options.sides.split(",").includes(one));
const seeds = Array.from({ length: whole("seeds", options.seeds) ?? 3 }, (_, index) => index + 1);
console.log(`${task.name}: ${JSON.stringify(task.settings)}, ${machine.threads} threads, ${out}`);

const judged: Record<Contender, JudgedRun[]> = { trl: [], hone: [] };
for (const seed of seeds) {
  // In turn, so that what else the machine does hits both alike.
  const records: RunRecord[] = [];
  for (const contender of sides) records.push(await runOnce(contender, seed));
  requireSamePrompts(records);
  const judgements = await judgeRuns(seed);
  for (const record of records) {
    judged[record.contender].push({ ...record, judgements: judgements[record.contender] });
  }
  if (sides.length === 2) await report();
}

async function taskNamed(name: string): Promise<LearnTask> {
  if (name === "inbox") {
    const inbox = inboxTask(options.smollm2);
    const dtype = options.dtype === "float32" ? "float32" : inbox.dtype;
    return { ...inbox, dtype };
  }
  if (name === "2048") return movesTask(await valuedPositions());
  throw new Error(`There is no task "${name}". Use inbox or 2048.`);
}

/** Computed once for a folder: it takes minutes. */
async function valuedPositions(): Promise<Positions> {
  const file = join(out, "positions.json");
  const known = await readJson<Positions>(file);
  if (known) return known;
  console.log("Playing on from each position to value its moves: two minutes …");
  const heldOut = positions(counts.heldOut, 1, new Set());
  const train = positions(counts.train, 2, new Set(heldOut.map(positionKey)));
  await writeJson(file, { train, heldOut });
  return { train, heldOut };
}

function withOptions(given: LearnTask): LearnTask {
  const settings = {
    ...given.settings,
    steps: whole("steps", options.steps) ?? given.settings.steps,
    judgeEvery: whole("judge-every", options["judge-every"]) ?? given.settings.judgeEvery,
    trlRows: whole("trl-rows", options["trl-rows"]) ?? given.settings.trlRows,
  };
  const samples = settings.groupsPerStep * settings.groupSize;
  // Rows that do not come out even would give TRL fewer samples than Hone.
  if (samples % settings.trlRows !== 0) {
    throw new Error(`--trl-rows must divide the ${samples} samples of a step.`);
  }
  return { ...given, settings };
}

function whole(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new Error(`--${name} must be a whole number of at least 1, not ${text}.`);
}

/** Runs of other settings must not stand in one table. */
async function requireSameSettings(): Promise<void> {
  const file = join(out, "settings.json");
  const now = { ...task.settings, dtype: task.dtype, threads: machine.threads, ...choices };
  const before = await readJson<typeof now>(file);
  if (before === null) await writeJson(file, now);
  else if (JSON.stringify(before) !== JSON.stringify(now)) {
    throw new Error(
      `${out} holds runs with other settings: give another --out, or the same options.`,
    );
  }
}

async function runOnce(contender: Contender, seed: number): Promise<RunRecord> {
  const folder = runFolder(out, contender, seed);
  const file = join(folder, "run.json");
  const made = await readJson<RunRecord>(file);
  if (made) return made;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  console.log(`${contender}, seed ${seed}`);
  const tell = ({ step, seconds, reward }: StepTime): void =>
    console.log(
      `  ${contender} ${seed}  step ${String(step).padStart(3)}/${task.settings.steps}  ` +
        `${seconds.toFixed(1).padStart(7)} s  reward ${reward?.toFixed(3) ?? "–"}`,
    );
  const how = { seed, machine, folder };
  const record =
    contender === "trl"
      ? await runTrl(task, { ...how, choices }, tell)
      : await runHone(task, how, tell);
  await writeJson(file, record);
  return record;
}

/** The two differ where a renderer and a chat template do: then they would not learn the same thing. */
function requireSamePrompts(records: readonly RunRecord[]): void {
  const prompts = new Set(records.map(({ promptIds }) => promptIds.join(" ")));
  if (prompts.size > 1) throw new Error("TRL and Hone show the model different prompts.");
}

type Judgements = Record<Contender, JudgedRun["judgements"]>;

/** One server judges both sides of a seed; the base is judged once for all. */
async function judgeRuns(seed: number): Promise<Judgements> {
  const file = join(out, `judged-${seed}.json`);
  const baseFile = join(out, "judged-base.json");
  const known = await readJson<Judgements>(file);
  // Judged when the experiment ran for one side alone, the other is still to be judged.
  if (known && sides.every((contender) => known[contender].length > 0)) return known;
  const folder = join(out, `judge-${seed}`);
  const server = await startHoneServer(task, machine, folder);
  try {
    const judgements: Judgements = { trl: known?.trl ?? [], hone: known?.hone ?? [] };
    const lora = { r: 16, alpha: 32 };
    const bare = await server.hone.model({ name: "base", lora });
    const base = (await readJson<Judgement>(baseFile)) ?? (await judge(task, bare.at(0)));
    await writeJson(baseFile, base);
    for (const contender of sides.filter((one) => judgements[one].length === 0)) {
      const model = await server.hone.model({ name: contender, lora });
      const judgementsOf = judgements[contender];
      judgementsOf.push({ step: 0, judgement: base });
      for (const step of judgedSteps(task.settings)) {
        const adapter = stepFolder(runFolder(out, contender, seed), step);
        const judgement = await judgeAdapter(server, task, model, adapter);
        judgementsOf.push({ step, judgement });
        const means = Object.entries(judgement.means).map(
          ([name, value]) => `${name} ${value.toFixed(3)}`,
        );
        console.log(`  judged ${contender} ${seed}, step ${step}: ${means.join(", ")}`);
      }
    }
    await writeJson(file, judgements);
    return judgements;
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function report(): Promise<void> {
  const summary = summarise(judged);
  await writeJson(join(out, "summary.json"), summary);
  const picture = {
    title: `${task.name}: held-out score over wall time`,
    label: task.judging.label,
    goal: summary.goal,
    references: task.references,
  };
  await writeFile(join(out, "curves.svg"), draw(picture, judged));
  const text = summaryText(summary, task);
  await writeFile(join(out, "summary.md"), text);
  console.log(await readFile(join(out, "summary.md"), "utf8"));
}
