import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { z } from "zod";
import { startChild, type Child, type ChildOptions } from "../supervise/child.ts";
import { createHttpEngine, type HttpEngine } from "../engines/http-engine.ts";
import { vllmChild } from "../engines/vllm/child.ts";
import { probeSchema, type Probe } from "../ports/live-set.ts";

const root = join(import.meta.dirname, "../../../..");
const workerSource = join(root, "packages/server/worker");
const fixtures = join(root, "scripts/engine-fixtures");
/** A base that is in the repository: four layers, with its own tokenizer. */
export const testBase = join(root, "models/hone-2048-1m");
/** The tokens that the two trained adapters always say. */
export const spoken = { a: 100, b: 200 };
const maxModelLen = 512;
const endTokens = [759, 757];
const quiet = { HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1", TOKENIZERS_PARALLELISM: "false" };

/** An engine process under test, with its driver. */
export interface RunningEngine {
  engine: HttpEngine;
  child: Child;
  maxModelLen: number;
  /** The test base's own: they end an answer. */
  endTokens: readonly number[];
  /** Where the adapters are: say-100, say-200, zero, mild, bad-rank, bad-shape. */
  adapters: string;
  /** vLLM on CPU answers wrongly for the bare base once every adapter slot is filled. */
  bareBaseAlwaysRight: boolean;
  stop(): Promise<void>;
}

/** The worker's Python; null where this machine has none, and the tests that need it are skipped. */
export function workerPython(): string | null {
  const chosen = process.env["HONE_PYTHON"]?.replace(/^~(?=\/)/, homedir());
  return chosen && existsSync(chosen) ? chosen : null;
}

export async function startWorkerChild(
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<Child> {
  const own = [
    ...["--base", testBase, "--served-name", "base", "--dtype", "float32"],
    ...["--max-model-len", String(maxModelLen)],
  ];
  return startPython("hone_worker.worker", [...own, ...args], env);
}

export async function startRendererChild(args: readonly string[] = []): Promise<Child> {
  return startPython("hone_worker.renderer", ["--base", testBase, ...args]);
}

async function startPython(
  module: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Child> {
  const python = workerPython();
  if (!python) throw new Error("HONE_PYTHON does not name a Python with the worker's packages");
  return startChild({
    name: module,
    command: python,
    args: ["-m", module, ...args],
    env: { ...quiet, PYTHONPATH: workerSource, ...env },
    log: pino({ level: process.env["HONE_TEST_LOG"] ?? "silent" }),
    unavailable: "worker_unavailable",
    readyTimeoutMs: 120_000,
  });
}

export async function startEmbedded(): Promise<RunningEngine> {
  return running("embedded", true, () => startWorkerChild());
}

export async function startVllm(): Promise<RunningEngine> {
  return running("vllm", false, () => startVllmChild());
}

/** Of an environment that has vLLM: `scripts/test-engine.mjs` names it. */
export function vllmOptions(
  env: Readonly<Record<string, string>> = {},
  more: { sleeps?: boolean } = {},
): ChildOptions {
  const python = process.env["HONE_VLLM_PYTHON"];
  if (!python) throw new Error("HONE_VLLM_PYTHON does not name a Python that has vLLM");
  return {
    ...vllmChild({
      // As many slots as the contract's tests fill.
      ...{ python, base: testBase, servedName: "base", maxModelLen, maxLoras: 4, ...more },
      env: { ...quiet, ...env },
    }),
    log: pino({ level: process.env["HONE_TEST_LOG"] ?? "silent" }),
  };
}

export async function startVllmChild(env: Readonly<Record<string, string>> = {}): Promise<Child> {
  return startChild(vllmOptions(env));
}

async function running(
  kind: "embedded" | "vllm",
  bareBaseAlwaysRight: boolean,
  start: () => Promise<Child>,
): Promise<RunningEngine> {
  const adapters = await trainedAdapters();
  const child = await start();
  const engine = createHttpEngine({ kind, baseURL: () => child.baseURL, key: () => child.key });
  return {
    engine,
    child,
    maxModelLen,
    endTokens,
    adapters,
    bareBaseAlwaysRight,
    async stop() {
      await engine.close();
      await child.stop();
    },
  };
}

/** Trains the adapters, once for as long as base and script stay the same: it takes half a minute. */
export async function trainedAdapters(): Promise<string> {
  const hash = createHash("sha256");
  for (const file of [join(testBase, "model.safetensors"), join(fixtures, "make.py")]) {
    hash.update(await readFile(file));
  }
  const folder = join(tmpdir(), `hone-engine-adapters-${hash.digest("hex").slice(0, 16)}`);
  if (existsSync(folder)) return folder;
  const made = await mkdtemp(`${folder}-`);
  await runPython("make.py", [
    ...["--base", testBase, "--out", made],
    ...["--tokens", Object.values(spoken).join(",")],
  ]);
  try {
    await rename(made, folder);
  } catch (error) {
    // Another test was quicker.
    if (!existsSync(folder)) throw error;
    await rm(made, { recursive: true });
  }
  return folder;
}

export interface ParityCase {
  adapter: string | null;
  prompt: readonly number[];
  ids: readonly number[];
  logprobs: readonly number[];
  temperature: number;
}

/** Absolute differences of the engine's logprobs from a PEFT forward of the same weights. */
export async function measureParity(
  cases: readonly ParityCase[],
): Promise<{ mean: number; max: number; tokens: number }> {
  const output = await runPython("parity.py", [], JSON.stringify({ base: testBase, cases }));
  return JSON.parse(output) as { mean: number; max: number; tokens: number };
}

/** What an engine has to answer with the adapter in each folder, as the trainer computes it. */
export async function probesOf(folders: readonly string[]): Promise<Record<string, Probe>> {
  const output = await runPython("probes.py", ["--base", testBase, ...folders]);
  return z.record(z.string(), probeSchema).parse(JSON.parse(output));
}

function runPython(script: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const process_ = execFile(
      workerPython() ?? "python3",
      [join(fixtures, script), ...args],
      { env: { ...process.env, ...quiet, PYTHONPATH: workerSource }, maxBuffer: 1 << 26 },
      (error, stdout) => (error ? reject(error) : resolve(stdout)),
    );
    process_.stdin?.end(input ?? "");
  });
}
