// Publications on vLLMs that joined by their sidecars, under traffic: what a publication takes, and whether any answer
// fails or is of other weights than of the policy that it names. Each engine answers a probe, and the last lines say
// where the time went.
//   pnpm bench joined-engines [--engines 2] [--publications 20] [--streams 16] [--keep] [-- flags for vLLM]
// Needs `hone setup --engine vllm` (3.4 GB) and HONE_PYTHON. On two cores it takes a minute or two.
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { pino } from "pino";
import type { LiveAdapter } from "../packages/server/src/ports/live-set.ts";
import { startJoinableServer } from "../packages/server/src/testing/joinable-server.ts";
import { startCli } from "../packages/server/src/testing/run-cli.ts";
import {
  probesOf,
  spoken,
  testBase,
  trainedAdapters,
} from "../packages/server/src/testing/running-engine.ts";
import { promptOf, sampleOne } from "../packages/server/src/testing/sampling.ts";
import { began, describePhases, published } from "./publication-phases.ts";

const { values, positionals: vllmFlags } = parseArgs({
  allowPositionals: true,
  options: {
    engines: { type: "string", default: "2" },
    publications: { type: "string", default: "20" },
    streams: { type: "string", default: "16" },
    /** Leaves the folder with the logs of all parts. */
    keep: { type: "boolean", default: false },
  },
});
const [engines, publications, streams] = [
  Number(values.engines),
  Number(values.publications),
  Number(values.streams),
];
const folder = mkdtempSync(join(tmpdir(), "hone-joined-engines-"));
mkdirSync(join(folder, "server"));
const adapters = await trainedAdapters();
const folders = [spoken.a, spoken.b].map((token) => join(adapters, `say-${token}`));
const probes = await probesOf(folders);
const lines: string[] = [];
const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
const server = await startJoinableServer({ dataDir: join(folder, "server"), log });
const sidecars: ReturnType<typeof startCli>[] = [];
try {
  for (let at = 1; at <= engines; at++) {
    const args = ["engine", "--join", server.url, "--name", `e${at}`, "--base", testBase];
    sidecars.push(
      startCli(
        [
          ...[...args, "--data-dir", join(folder, `e${at}`), "--log-level", "debug"],
          ...["--max-loras", "6", "--", ...vllmFlags],
        ],
        { HONE_JOIN_TOKEN: await server.token(), OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" },
      ),
    );
  }
  await untilAllServe();
  await measure();
} finally {
  for (const { child } of sidecars) child.kill("SIGTERM");
  const ends = await Promise.all(sidecars.map(({ ended }) => ended));
  for (const { code, error } of ends) if (code !== 0) console.error(`status ${code}: ${error}`);
  const logs = ends.map(({ error }, at): [string, string] => [`e${at + 1}`, error]);
  console.log(describePhases(lines.join(""), new Map(logs)));
  await server.close();
  if (values.keep) {
    for (const [name, text] of logs) writeFileSync(join(folder, `${name}.log`), text);
    writeFileSync(join(folder, "server.log"), lines.join(""));
    console.log(`kept: ${folder}`);
  } else rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}

async function untilAllServe(): Promise<void> {
  for (;;) {
    const all = await server.engines();
    if (all.filter(({ state }) => state === "serving").length === engines) return;
    const gone = sidecars.find(({ child }) => child.exitCode !== null);
    if (gone) throw new Error((await gone.ended).error);
    await delay(200);
  }
}

/**
 * The policies of a model say one token and the other in turn, so that neighbours cannot be taken for each other. Each has
 * files of its own, as each has that a step has written: no engine has them before.
 */
function makePolicy(model: string, step: number): { adapter: LiveAdapter; token: number } {
  const token = step % 2 === 0 ? spoken.a : spoken.b;
  const from = join(adapters, `say-${token}`);
  const path = join(folder, "policies", model, String(step));
  mkdirSync(path, { recursive: true });
  copyFileSync(join(from, "adapter_config.json"), join(path, "adapter_config.json"));
  const weights = named(readFileSync(join(from, "adapter_model.safetensors")), `${model}@${step}`);
  writeFileSync(join(path, "adapter_model.safetensors"), weights);
  const adapter = {
    policy: `${model}@${step}`,
    path,
    sha256: createHash("sha256").update(weights).digest("hex"),
    bytes: weights.length,
    rank: 8,
    probe: probes[from],
  };
  return { adapter, token };
}

/** The same weights in another file: its header has a name in it. */
function named(weights: Buffer, name: string): Buffer {
  const length = Number(weights.readBigUInt64LE());
  const header = JSON.parse(weights.subarray(8, 8 + length).toString("utf8")) as object;
  const text = JSON.stringify({ ...header, __metadata__: { format: "pt", name } });
  const other = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(other.length));
  return Buffer.concat([size, other, weights.subarray(8 + length)]);
}

async function measure(): Promise<void> {
  const models = ["m", "n"] as const;
  const newest = new Map<string, { adapter: LiveAdapter; token: number; step: number }>();
  const publish = async (model: string, step: number): Promise<number> => {
    const made = makePolicy(model, step);
    const { policy } = made.adapter;
    const begun = performance.now();
    log.debug({ policy }, began);
    await server.pool.load(made.adapter);
    newest.set(model, { ...made, step });
    const tookMs = performance.now() - begun;
    log.debug({ policy, tookMs: Math.round(tookMs) }, published);
    return tookMs;
  };
  for (const model of models) await publish(model, 0);

  const over = new AbortController();
  let [answers, failed, mixed] = [0, 0, 0];
  const held = new Map<string, number>();
  const ask = async (model: string, nth: number): Promise<void> => {
    const { adapter, token } = newest.get(model)!;
    held.set(adapter.policy, (held.get(adapter.policy) ?? 0) + 1);
    try {
      const request = { model: adapter.policy, prompt: promptOf(nth), maxTokens: 24, stream: true };
      const { ids } = await sampleOne(server.pool, { ...request, temperature: 0 });
      answers++;
      if (ids.some((id) => id !== token)) mixed++;
    } catch (error) {
      failed++;
      console.error(adapter.policy, (error as Error).message);
      await delay(500);
    } finally {
      held.set(adapter.policy, held.get(adapter.policy)! - 1);
    }
  };
  const running = Array.from({ length: streams }, async (_, nth) => {
    while (!over.signal.aborted) await ask(models[nth % models.length]!, nth);
  });

  // The first batches of many rows are slow.
  for (;;) {
    if (answers >= 2 * streams) break;
    await delay(100);
  }
  const took: number[] = [];
  for (let at = 1; at <= publications; at++) {
    const model = models[at % models.length]!;
    const step = newest.get(model)!.step + 1;
    took.push(await publish(model, step));
    const old = `${model}@${step - 2}`;
    if (step >= 2) {
      while ((held.get(old) ?? 0) > 0) await delay(20);
      await server.pool.unload(old);
    }
    await delay(500);
  }
  over.abort();
  await Promise.all(running);
  const inOrder = took.map((ms) => Math.round(ms)).join(" ");
  took.sort((a, b) => a - b);
  const quantile = (share: number): string =>
    `${Math.round(took[Math.min(took.length - 1, Math.ceil(share * took.length) - 1)]!)} ms`;
  console.log(
    [
      `${engines} engines, ${publications} publications, ${streams} streams of ${models.length} models`,
      `answers ${answers}, failed ${failed}, of other weights ${mixed}`,
      `load average ${loadavg()[0]?.toFixed(1)}, ${cpus().length} cores`,
      `a publication: median ${quantile(0.5)}, p95 ${quantile(0.95)}, longest ${quantile(1)}`,
      `in their order: ${inOrder} ms`,
      (await server.engines()).map(
        ({ name, state, reason }) => `${name}: ${state} ${reason ?? ""}`,
      ),
    ]
      .flat()
      .join("\n"),
  );
  if (failed + mixed > 0) process.exitCode = 1;
}
