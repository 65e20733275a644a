// `pnpm faults:vllm [--only NAME]`: breaks real vLLMs under a run, one of the server's own and one that joined, and
// prints what came of it. Needs `hone setup --engine vllm` and HONE_PYTHON. It takes about twenty minutes.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { processesOf } from "../server-process.ts";
import { faults, type Fault } from "./plan.ts";
import { startSetting, type Setting } from "./setting.ts";

const { values } = parseArgs({
  options: {
    /** Only the faults whose name has this in it. */
    only: { type: "string", default: "" },
  },
});
if (!process.env["HONE_PYTHON"])
  fail("HONE_PYTHON does not name the worker's Python. `hone setup` prints it.");
// Every descendant inherits it, so what is left over can be found.
const mark = (process.env["HONE_TEST_MARK"] = randomUUID());
process.env["OMP_NUM_THREADS"] = "1";
const say = (line: string): void =>
  console.error(`${new Date().toISOString().slice(11, 19)} ${line}`);

interface Row {
  fault: Fault;
  /** Seconds until it was noticed and until the engine served again; null where there is nothing to notice. */
  noticed: number | null;
  back: number | null;
  said: string;
  answers: number;
  wrong: string[];
}

const chosen = faults.filter(({ name }) => name.includes(values.only));
if (chosen.length === 0) fail(`No fault has "${values.only}" in its name.`);
const rows: Row[] = [];
const setting = await startSetting(say);
try {
  for (const fault of chosen) {
    const row = await runOne(fault, setting);
    rows.push(row);
    say(`${rows.length}/${chosen.length} ${shown(row)}`);
  }
} finally {
  await setting.close();
}
for (let look = 0; look < 20 && left().length > 0; look++) await delay(500);
console.log(
  [
    "| what | noticed (s) | back (s) | what it said | answers meanwhile | as it should be |",
    "|---|---|---|---|---|---|",
    ...rows.map(shown),
  ].join("\n"),
);
const bad = rows.filter(({ wrong }) => wrong.length > 0).length;
console.log(
  `\n${rows.length - bad} of ${rows.length} as they should be; processes left over at the end: ${left().length}.`,
);
process.exit(bad + left().length > 0 ? 1 : 0);

function left(): number[] {
  return processesOf(mark).filter((pid) => pid !== process.pid);
}

async function runOne(fault: Fault, on: Setting): Promise<Row> {
  say(`${fault.name} …`);
  const row: Row = { fault, noticed: null, back: null, said: "", answers: 0, wrong: [] };
  const { traffic } = on;
  const [answers, failed, mixed] = [traffic.answers, traffic.failed.length, traffic.mixed];
  try {
    Object.assign(row, await fault.run(on));
    row.answers = traffic.answers - answers;
    if (fault.needsTraffic && row.answers === 0) row.wrong.push("nothing was answered meanwhile");
    const step = await on.trainStep();
    if (!step.startsWith("words@")) row.wrong.push(`the run did not go on: ${step}`);
    const next = await on.publish();
    if (next.status !== "succeeded")
      row.wrong.push(`nothing could be published afterwards: ${next.error}`);
  } catch (error) {
    row.wrong.push((error as Error).message);
  }
  for (const message of traffic.failed.slice(failed)) row.wrong.push(`a stream failed: ${message}`);
  if (traffic.mixed > mixed) row.wrong.push(`${traffic.mixed - mixed} answers of other weights`);
  return row;
}

function shown({ fault, noticed, back, said, answers, wrong }: Row): string {
  const seconds = (value: number | null): string => (value === null ? "–" : value.toFixed(1));
  const verdict = wrong.length > 0 ? wrong.join("; ") : "yes";
  return `| ${[fault.name, seconds(noticed), seconds(back), said, answers, verdict].join(" | ")} |`;
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
