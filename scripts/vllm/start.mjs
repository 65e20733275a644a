#!/usr/bin/env node
// Starts vLLM as an engine of Hone, and ends it with its parent:
//   node scripts/vllm/start.mjs --base FOLDER [--served-name NAME] [--max-model-len N] [--dtype float32]
// Prints {"ready": true, "port", "boot"} when it has answered a first request, as every child of the
// server does (docs/worker-contract.md); the key is HONE_WORKER_KEY. Ends at the end of standard input.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { findVllmPython } from "./environment.mjs";

const { values: options } = parseArgs({
  options: {
    base: { type: "string" },
    "served-name": { type: "string" },
    "max-model-len": { type: "string" },
    "max-loras": { type: "string", default: "4" },
    "max-lora-rank": { type: "string", default: "16" },
    dtype: { type: "string", default: "float32" },
    "ready-seconds": { type: "string", default: "240" },
  },
});
/** A socket's path may have 107 bytes; the longest that vLLM and its libraries add have 40. */
const longestFolder = 107 - 40;
let child;
let folder;
let stopping = false;
if (!options.base) fail("Name the base model: --base FOLDER");
const key = process.env.HONE_WORKER_KEY;
if (!key) fail("HONE_WORKER_KEY is not set. Set the key that vLLM shall ask for.");
const python = findVllmPython();
if (!python) fail("vLLM is not installed. Run: node scripts/vllm/setup.mjs");

const servedName = options["served-name"] ?? options.base;
const port = await freePort();
folder = temporaryFolder();
child = spawn(
  python,
  [
    join(import.meta.dirname, "serve.py"),
    ...["--model", options.base, "--served-model-name", servedName],
    ...["--host", "127.0.0.1", "--port", String(port)],
    ...["--dtype", options.dtype, "--lora-dtype", "auto"],
    ...(options["max-model-len"] ? ["--max-model-len", options["max-model-len"]] : []),
    ...[
      "--enable-lora",
      "--max-loras",
      options["max-loras"],
      "--max-lora-rank",
      options["max-lora-rank"],
    ],
    ...["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"],
    ...["--structured-outputs-config.backend", "guidance"],
    ...["--structured-outputs-config.disable_any_whitespace", "true"],
    "--enforce-eager",
    "--disable-uvicorn-access-log",
  ],
  {
    // A group of its own: vLLM starts workers that would otherwise outlive it.
    detached: true,
    // Its end tells serve.py that this process is gone.
    stdio: ["pipe", process.stderr, process.stderr],
    env: {
      ...process.env,
      // vLLM leaves sockets and files behind when it is ended: they go with their folder.
      TMPDIR: folder,
      VLLM_RPC_BASE_PATH: folder,
      // Not on the command line, which every user of the machine can read.
      VLLM_API_KEY: key,
      VLLM_ALLOW_RUNTIME_LORA_UPDATING: "1",
      VLLM_NO_USAGE_STATS: "1",
      DO_NOT_TRACK: "1",
      VLLM_CPU_KVCACHE_SPACE: process.env.VLLM_CPU_KVCACHE_SPACE ?? "1",
      VLLM_CPU_OMP_THREADS_BIND: process.env.VLLM_CPU_OMP_THREADS_BIND ?? "nobind",
    },
  },
);
const exited = once(child, "exit").then(([code, signal]) => signal ?? `code ${code}`);
process.stdin.resume();
process.stdin.on("end", () => void stop());
process.stdin.on("error", () => void stop());
for (const name of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(name, () => void stop());
void exited.then((how) => {
  if (!stopping) fail(`vLLM ended (${how}). Its last lines above say why.`);
});

await ready();
if (!stopping) {
  console.log(JSON.stringify({ ready: true, port, boot: process.env.HONE_BOOT_ID ?? "" }));
}

/** Healthy, the model that we named, and one token sampled: the first takes seconds. */
async function ready() {
  const url = `http://127.0.0.1:${port}`;
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const deadline = Date.now() + Number(options["ready-seconds"]) * 1000;
  while (!stopping) {
    if (Date.now() > deadline) {
      await stop();
      fail(`vLLM was not ready after ${options["ready-seconds"]} s. Raise --ready-seconds.`);
    }
    try {
      const health = await fetch(`${url}/health`);
      if (health.ok) break;
    } catch {
      // Not listening yet.
    }
    await delay(250);
  }
  if (stopping) return;
  const models = await (await fetch(`${url}/v1/models`, { headers })).json();
  if (!models.data?.some((model) => model.id === servedName))
    fail("Another server answers on vLLM's port.");
  const body = JSON.stringify({ model: servedName, prompt: [1, 2, 3], max_tokens: 2 });
  const first = await fetch(`${url}/v1/completions`, { method: "POST", headers, body });
  if (!first.ok) fail(`vLLM refused the first request: ${await first.text()}`);
}

async function stop() {
  if (stopping) return;
  stopping = true;
  signalGroup("SIGTERM");
  await Promise.race([exited, delay(8000)]);
  // Whatever of the group is left holds the model's memory.
  signalGroup("SIGKILL");
  await exited;
  removeFolder();
  process.exit(0);
}

function signalGroup(signal) {
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

/** Where a system keeps them too far down for a socket, in /tmp. */
function temporaryFolder() {
  const [name, random] = ["hone-vllm-", 6];
  const length = Buffer.byteLength(join(tmpdir(), name)) + random;
  return mkdtempSync(join(length <= longestFolder ? tmpdir() : "/tmp", name));
}

/** serve.py removes it where this process cannot any more. */
function removeFolder() {
  if (folder) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return address.port;
}

function fail(message) {
  console.error(message);
  if (!stopping && child?.pid) signalGroup("SIGKILL");
  removeFolder();
  process.exit(1);
}
