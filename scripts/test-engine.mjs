#!/usr/bin/env node
// Runs the engine contract against real engines: pnpm test:engine [--engine embedded|vllm|all]
import { spawnSync } from "node:child_process";
import process from "node:process";
import { parseArgs } from "node:util";
import { findVllmPython } from "./vllm/environment.mjs";

const { values } = parseArgs({ options: { engine: { type: "string", default: "all" } } });
const engines = { embedded: ["embedded"], vllm: ["vllm"], all: ["embedded", "vllm"] }[
  values.engine
];
if (!engines) fail(`There is no engine "${values.engine}". Use embedded, vllm or all.`);
if (engines.includes("vllm") && !findVllmPython()) {
  fail(
    "vLLM is not installed. Run `node scripts/vllm/setup.mjs` (3.4 GB), or use --engine embedded.",
  );
}
if (!process.env.HONE_PYTHON) {
  fail("HONE_PYTHON does not name the worker's Python. `hone setup` prints it.");
}

// One after the other: two engines on few cores would time each other out.
for (const engine of engines) {
  const { status } = spawnSync(
    "npx",
    [
      "vitest",
      "run",
      "--no-file-parallelism",
      `packages/server/src/engine/${engine}.contract.test.ts`,
    ],
    { stdio: "inherit", env: { ...process.env, HONE_TEST_ENGINES: engine } },
  );
  if (status !== 0) process.exit(status ?? 1);
}

function fail(message) {
  console.error(message);
  process.exit(2);
}
