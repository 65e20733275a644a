#!/usr/bin/env node
// Installs Tinker's Python client into an environment of its own (160 MB), for test/primitives/tinker-client.test.ts.
// HONE_TINKER_PYTHON names another one.
import { join } from "node:path";
import process from "node:process";
import { installPackages, root, tsx } from "../install.mjs";
import { endAll, onInterrupt, run } from "../processes.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
await installPackages();
const install = join(import.meta.dirname, "install.mjs");
process.exit((await run(process.execPath, [...tsx, install], { cwd: root })).status);
