// `pnpm bench trainer [--bases 1m,smollm2] [--dtype float32|bfloat16] [--work a,b,c] [--sides hone,trl,…] [--groups 2]
// [--rounds 3] [--threads 1,2]`: an optimizer step on the same tokens by this worker, by TRL and by plain PEFT and
// torch. Each side is a process of its own, and the sides take turns: seconds, processor time and the peak of memory of
// each. `hone` measures how it uses the most of these threads, as a worker does at its start; `hone-one` is the same with
// one part of a micro-batch at a time. The others are there once for each number of threads.
// `--growth` instead: how the time of Hone's step grows with its tokens, from 1,400 to 64,000 of them.
import { spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { loadavg } from "node:os";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findEnvironment } from "@hone/server";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

interface Ready {
  /** Of a side of Hone's: how it uses them (train/cores.py). */
  cores?: { train: number; parts: number };
}

interface Cost {
  seconds: number;
  cpu: number;
  /** MiB: the process at its highest in this step, and as it stood before the first. */
  peak: number;
  stands: number;
  /** Through the model, padding included, and those of the trees: a shared beginning counts once. */
  tokens: number;
  unique: number;
}

class Side {
  readonly costs: Cost[] = [];
  readonly name: string;
  private readonly child: ChildProcessByStdio<Writable, Readable, null>;
  private readonly answers: AsyncIterator<string>;

  constructor(
    side: string,
    base: string,
    work: string,
    { threads = Math.max(...threadCounts), groups = options.groups } = {},
  ) {
    this.name = side.startsWith("hone") ? side : `${side}, ${threads} threads`;
    this.child = spawn(
      python,
      [
        at("trainer_side.py"),
        ...["--side", side, "--base", base, "--dtype", options.dtype, "--workload", work],
        ...["--groups", groups, "--threads", String(threads)],
      ],
      {
        stdio: ["pipe", "pipe", "inherit"],
        env: {
          ...process.env,
          PYTHONPATH: at("../packages/server/worker"),
          HF_HUB_OFFLINE: "1",
          HF_HUB_DISABLE_PROGRESS_BARS: "1",
          OMP_NUM_THREADS: String(threads),
          OMP_WAIT_POLICY: "PASSIVE",
        },
      },
    );
    this.answers = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  /** The next line that it says. Resolves once it is ready, or once a step is done. */
  async answer(): Promise<unknown> {
    const next = await this.answers.next();
    if (next.done) throw new Error(`${this.name} ended early. Its own words are above.`);
    return JSON.parse(next.value);
  }

  async step(): Promise<Cost> {
    this.child.stdin.write("\n");
    return (await this.answer()) as Cost;
  }

  async end(): Promise<void> {
    const exited = once(this.child, "exit");
    this.child.stdin.end();
    if (this.child.exitCode === null) await exited;
  }
}

const { values: options } = parseArgs({
  options: {
    bases: { type: "string", default: "1m" },
    dtype: { type: "string", default: "float32" },
    work: { type: "string", default: "a,b,c" },
    sides: { type: "string", default: "hone,trl,trl-recompute,peft,peft-turns" },
    groups: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    growth: { type: "boolean", default: false },
  },
});
const threadCounts = options.threads.split(",").map(Number);
const SIDES = ["hone", "hone-one", "trl", "trl-plain", "trl-recompute", "peft", "peft-turns"];
const WORK: Record<string, string> = {
  a: "groups of 8 answers of 64 tokens to a prompt of 192",
  b: "groups of 8 conversations of 20 turns",
  c: "groups of 8 rows of 256 tokens that share nothing",
};
const bases: Record<string, string | undefined> = {
  "1m": at("../models/hone-2048-1m"),
  smollm2: process.env["HONE_SMOLLM2"],
};
const median = (all: readonly number[]): number =>
  all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] ?? Number.NaN;

requireKnown("bases", options.bases, Object.keys(bases));
requireKnown("work", options.work, Object.keys(WORK));
requireKnown("sides", options.sides, SIDES);
requireKnown("dtype", options.dtype, ["float32", "bfloat16"]);
if (!threadCounts.every((count) => Number.isInteger(count) && count >= 1))
  refuse("--threads takes numbers of threads, such as 1,2.");
const python = await findEnvironment();
if (options.growth) await growth(bases["1m"] ?? "");
for (const name of options.growth ? [] : options.bases.split(",")) {
  const base = bases[name] ?? refuse("SmolLM2 is not here: `npx hone setup --model smollm2`.");
  for (const work of options.work.split(",")) await compare(name, base, work);
}

function requireKnown(option: string, given: string, known: readonly string[]): void {
  const strange = given.split(",").find((name) => !known.includes(name));
  if (strange !== undefined)
    refuse(`--${option} does not take "${strange}". Use ${known.join(", ")}.`);
}

function refuse(message: string): never {
  console.error(message);
  process.exit(2);
}

async function compare(name: string, base: string, work: string): Promise<void> {
  // A row for each turn is the same as a row for each rollout where a rollout has one turn.
  const wanted = options.sides.split(",").filter((side) => work === "b" || side !== "peft-turns");
  const sides: Side[] = [];
  const load = [loadavg()[0] ?? 0];
  try {
    for (const side of wanted) {
      for (const threads of side.startsWith("hone") ? [Math.max(...threadCounts)] : threadCounts) {
        const started = new Side(side, base, work, { threads });
        sides.push(started);
        const { cores } = (await started.answer()) as Ready;
        if (cores) console.log(`${side}: ${cores.train} threads, ${cores.parts} parts at a time`);
      }
    }
    // The first step of each is not counted: it makes what later ones find ready.
    for (const side of sides) await side.step();
    for (let round = 0; round < Number(options.rounds); round += 1) {
      for (const side of round % 2 === 0 ? sides : sides.toReversed())
        side.costs.push(await side.step());
    }
    load.push(loadavg()[0] ?? 0);
  } finally {
    await Promise.all(sides.map((side) => side.end()));
  }
  console.log(
    `\n${name}, ${options.dtype}, ${options.groups} ${WORK[work]}, ${options.threads} threads, load ${load.map((one) => one.toFixed(1)).join(" to ")}`,
  );
  const own = sides.find((side) => side.name === "hone")?.costs ?? [];
  console.table(Object.fromEntries(sides.map(({ name: side, costs }) => [side, row(costs, own)])));
}

function row(costs: readonly Cost[], own: readonly Cost[]): Record<string, string> {
  const of = (key: keyof Cost): number => median(costs.map((cost) => cost[key]));
  const ratio = (value: (cost: Cost) => number): string =>
    median(costs.map((cost, round) => value(cost) / value(own[round] ?? cost))).toFixed(2);
  return {
    "tokens / unique": (of("tokens") / of("unique")).toFixed(2),
    "s a step": of("seconds").toFixed(2),
    "CPU s a step": of("cpu").toFixed(2),
    "times Hone's s": ratio((cost) => cost.seconds),
    "times Hone's CPU s": ratio((cost) => cost.cpu),
    "MiB above its rest": (of("peak") - of("stands")).toFixed(0),
    "times Hone's memory": ratio((cost) => cost.peak - cost.stands),
  };
}

/** Steps of 2 to 91 groups in turn, and how well a straight line tells their time from their tokens. */
async function growth(base: string): Promise<void> {
  const sides: Side[] = [];
  try {
    for (const groups of [2, 4, 8, 16, 32, 64, 91]) {
      const side = new Side("hone", base, "a", { groups: String(groups) });
      sides.push(side);
      await side.answer();
      await side.step();
    }
    for (let round = 0; round < Number(options.rounds); round += 1)
      for (const side of sides) side.costs.push(await side.step());
  } finally {
    await Promise.all(sides.map((side) => side.end()));
  }
  const points = sides.map(({ costs }) => ({
    "unique tokens": costs[0]?.unique ?? 0,
    "s a step": median(costs.map((cost) => cost.seconds)),
    "CPU s a step": median(costs.map((cost) => cost.cpu)),
  }));
  console.table(points);
  for (const key of ["s a step", "CPU s a step"] as const)
    console.log(
      `${key}: R² of a straight line ${straightness(points.map((point) => [point["unique tokens"], point[key]])).toFixed(4)}`,
    );
}

/** R² of the least-squares line through these points. */
function straightness(points: readonly (readonly [number, number])[]): number {
  const mean = (of: (point: readonly [number, number]) => number): number =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean((point) => point[0]), mean((point) => point[1])];
  const xx = mean((point) => (point[0] - x) ** 2);
  const yy = mean((point) => (point[1] - y) ** 2);
  const xy = mean((point) => (point[0] - x) * (point[1] - y));
  return xy ** 2 / (xx * yy);
}
