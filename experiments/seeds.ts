// `pnpm experiment seeds [2048|inbox] [--seeds 1,2,3] [--fresh 3] [--control 1] [--supervised] [--steps N]
// [--last-rate SHARE] [--out FOLDER]` — the quickstart's verdict over seeds, with its controls and baselines.
//
// Every run is the command that a user types, in a process of its own. What is done stands in
// FOLDER/results.json, so that the same command goes on where it was cut off.
import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { superviseBest } from "./seeds-supervised.ts";
import { resultsText } from "./seeds-table.ts";
import { runQuickstart, type SeedRun } from "./seeds-run.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: "string", default: "1,2,3" },
    fresh: { type: "string", default: "0" },
    control: { type: "string", default: "0" },
    supervised: { type: "boolean", default: false },
    out: { type: "string" },
    steps: { type: "string" },
    "last-rate": { type: "string" },
    table: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (values.help) {
  console.log(
    "pnpm experiment seeds [2048 | inbox] [options]\n" +
      "  --seeds 1,2,3   seeds that everybody runs\n" +
      "  --fresh 3       as many more, drawn now and written down\n" +
      "  --control 1     runs with rewards shuffled within their group: they should learn nothing\n" +
      "  --supervised    2048: train on the best game of each group of the first run instead, and compare\n" +
      "  --steps N       of the example; its default where it is left out\n" +
      "  --last-rate S   share of the learning rate at the last step (1: constant); the example's default\n" +
      "  --out FOLDER    runs and results.json; one that is there goes on (default: runs/seeds-STORY)\n" +
      "  --table         only show what stands in FOLDER/results.json",
  );
  process.exit(0);
}
const story = positionals[0] ?? "2048";
if (story !== "2048" && story !== "inbox") fail(`There is no example "${story}".`);
if (values.supervised && story !== "2048") fail("--supervised is for 2048.");
const out = resolve(values.out ?? join("runs", `seeds-${story}`));
const file = join(out, "results.json");
const example = [
  ...(values.steps === undefined ? [] : ["--steps", values.steps]),
  ...(values["last-rate"] === undefined ? [] : ["--last-rate", values["last-rate"]]),
];

const runs: SeedRun[] = existsSync(file) ? JSON.parse(await readFile(file, "utf8")) : [];
if (!values.table) {
  await mkdir(out, { recursive: true });
  await requireSameOptions();
  const seeds = values.seeds.split(",").filter(Boolean).map(whole);
  for (const seed of seeds) await once("fixed", seed);
  await several("fresh", whole(values.fresh), () => randomInt(1000, 1_000_000));
  const controlSeed = (at: number) => seeds[at] ?? Math.max(0, ...seeds) + 1 + at - seeds.length;
  await several("control", whole(values.control), controlSeed);
  const first = runs.find(({ kind }) => kind === "fixed" || kind === "fresh");
  if (values.supervised && first && !runs.some(({ kind }) => kind === "supervised")) {
    await keep({ ...(await superviseBest(first)), kind: "supervised" });
  }
}
console.log(resultsText(story, runs));

/** Runs of other options must not stand in one table. */
async function requireSameOptions(): Promise<void> {
  const note = join(out, "options.json");
  const now = JSON.stringify(example);
  const before = existsSync(note) ? await readFile(note, "utf8") : null;
  if (before === null && runs.length === 0) await writeFile(note, now);
  else if (before !== now) {
    fail(`${out} holds runs with other options: give another --out, or the same options.`);
  }
}

async function several(
  kind: SeedRun["kind"],
  count: number,
  seedOf: (at: number) => number,
): Promise<void> {
  for (let at = runs.filter((run) => run.kind === kind).length; at < count; at += 1) {
    await once(kind, seedOf(at));
  }
}

async function once(kind: SeedRun["kind"], seed: number): Promise<void> {
  if (runs.some((run) => run.kind === kind && run.seed === seed)) return;
  const args = [...example, ...(kind === "control" ? ["--shuffle-rewards"] : [])];
  await keep({
    ...(await runQuickstart(story as "2048" | "inbox", { out, kind, seed, args })),
    kind,
  });
}

async function keep(run: SeedRun): Promise<void> {
  runs.push(run);
  await writeFile(file, `${JSON.stringify(runs, null, 2)}\n`);
}

function whole(text: string): number {
  const value = Number(text);
  return Number.isSafeInteger(value) && value >= 0
    ? value
    : fail(`"${text}" is not a whole number.`);
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
