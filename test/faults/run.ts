// `pnpm faults`: breaks a training step at every fault point and at random instants, and prints what came of it.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { everyPoint, randomTrials } from "./plan.ts";
import { makeTemplate } from "./template.ts";
import { runReference, runTrial, type Trial, type TrialResult } from "./trial.ts";

const { values } = parseArgs({
  options: {
    random: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    /** Only the points whose name has this in it. */
    only: { type: "string" },
    jobs: { type: "string", default: "1" },
  },
});

const folder = mkdtempSync(join(tmpdir(), "hone-faults-"));
process.once("exit", () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

const template = await makeTemplate(join(folder, "template"));
const reference = await runReference(template, folder);
console.error(`undisturbed: ${reference.workMs.toFixed(0)} ms`);
const points = everyPoint.filter(({ name }) => name.includes(values.only ?? ""));
const random = randomTrials(Number(values.random), Number(values.seed), reference.workMs);
const rows: TrialResult[] = [];
let failed = reference.faults.length > 0 ? 1 : 0;
const queue = [...points, ...random];
const total = queue.length;
const all: Trial[] = [...queue];
await Promise.all(
  Array.from({ length: Number(values.jobs) }, async () => {
    for (let trial = queue.shift(); trial; trial = queue.shift()) await runOne(trial);
  }),
);
rows.sort((a, b) => all.indexOf(a.trial) - all.indexOf(b.trial));
console.log(table(rows));
console.log(`\n${rows.length - failed} of ${total} as they should be.`);
process.exit(failed > 0 ? 1 : 0);

async function runOne(trial: Trial): Promise<void> {
  const result = await runTrial(template, trial, folder, reference.files).catch(
    (error: unknown): TrialResult => ({
      trial,
      outcome: "no end",
      faults: [error instanceof Error ? error.message : String(error)],
      backSeconds: null,
      doneSeconds: null,
      workMs: 0,
      files: {},
    }),
  );
  rows.push(result);
  if (result.faults.length > 0) failed++;
  const verdict = result.faults.length > 0 ? `FAULTS: ${result.faults.join(" | ")}` : "ok";
  console.error(`${rows.length}/${total} ${row(result)}: ${verdict}`);
}

function table(results: readonly TrialResult[]): string {
  return [
    "| where | killed | the step | same bits, checker clean | serves again (s) | client done (s) |",
    "|---|---|---|---|---|---|",
    ...results.map(row),
  ].join("\n");
}

function row({ trial, outcome, faults, backSeconds, doneSeconds }: TrialResult): string {
  const seconds = (value: number | null): string => (value === null ? "–" : value.toFixed(1));
  const cells = [
    trial.name,
    trial.victim ?? "–",
    outcome,
    faults.length > 0 ? faults.join(", ") : "yes",
    seconds(backSeconds),
    seconds(doneSeconds),
  ];
  return `| ${cells.join(" | ")} |`;
}
