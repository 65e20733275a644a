#!/usr/bin/env node
// Runs the engine contract against real engines, and on vLLM the loop too (the end-to-end tests run it on
// the embedded engine): pnpm test:engine [--engine embedded|vllm|all]
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { root } from "./install.mjs";
import { findVllmPython } from "./vllm/environment.mjs";

const { values } = parseArgs({ options: { engine: { type: "string", default: "all" } } });
const engines = { embedded: ["embedded"], vllm: ["vllm"], all: ["embedded", "vllm"] }[
  values.engine
];
if (!engines) fail(`There is no engine "${values.engine}". Use embedded, vllm or all.`);
const vllm = engines.includes("vllm") ? findVllmPython() : null;
if (engines.includes("vllm") && !vllm) {
  fail(
    "vLLM is not installed. Run `node scripts/vllm/setup.mjs` (3.4 GB), or use --engine embedded.",
  );
}
if (!process.env.HONE_PYTHON) {
  fail("HONE_PYTHON does not name the worker's Python. `hone setup` prints it.");
}

const tests = {
  embedded: ["packages/server/src/engines/embedded.contract.test.ts"],
  vllm: ["packages/server/src/engines/vllm.contract.test.ts", "test/vllm/vllm.test.ts"],
};
// vLLM, worker and renderer share few cores: a thread each.
const env = { OMP_NUM_THREADS: "1", OMP_WAIT_POLICY: "passive", ...process.env };
if (vllm) env.HONE_VLLM_PYTHON = vllm;
// One after the other: two engines on few cores would time each other out.
for (const file of engines.flatMap((engine) => tests[engine])) {
  const { status } = spawnSync("npx", ["vitest", "run", "--no-file-parallelism", file], {
    stdio: "inherit",
    env: { ...env, HONE_TEST_ENGINES: engines.join(",") },
  });
  if (status !== 0) process.exit(status ?? 1);
}
if (vllm) {
  // How long a new policy takes on vLLM, and whether it says what the trainer says: as on a card, of a tiny base.
  const out = mkdtempSync(join(tmpdir(), "hone-gpu-bench-"));
  const stage = ["--shape", "tiny", "--stages", "vllm_engine", "--out", out];
  const worker = join(root, "packages", "server", "worker");
  const { status } = spawnSync(
    process.env.HONE_PYTHON,
    [join(root, "bench", "gpu", "all.py"), ...stage],
    { stdio: "inherit", env: { ...env, PYTHONPATH: worker, CUDA_VISIBLE_DEVICES: "" } },
  );
  if (status !== 0) process.exit(status ?? 1);
  rmSync(out, { recursive: true, force: true });
}

function fail(message) {
  console.error(message);
  process.exit(2);
}
