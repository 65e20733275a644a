#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { HoneError } from "@hone/core";
import { Command } from "commander";
import { exportCommand } from "./cli/export.ts";
import { gcCommand } from "./cli/gc.ts";
import { importCommand } from "./cli/import.ts";
import { inspectCommand } from "./cli/inspect.ts";
import { keysCommand } from "./cli/keys.ts";
import { modelsCommand } from "./cli/models.ts";
import { pinCommand, unpinCommand } from "./cli/pin.ts";
import { runsCommand } from "./cli/runs.ts";
import { serveCommand } from "./cli/serve.ts";
import { setupCommand } from "./cli/setup.ts";

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const program = new Command("hone")
  .description("Trains the model behind a TypeScript agent.")
  .version(manifest.version)
  .addCommand(serveCommand())
  .addCommand(setupCommand())
  .addCommand(modelsCommand())
  .addCommand(runsCommand())
  .addCommand(inspectCommand())
  .addCommand(exportCommand())
  .addCommand(importCommand())
  .addCommand(pinCommand())
  .addCommand(unpinCommand())
  .addCommand(gcCommand())
  .addCommand(keysCommand())
  .showHelpAfterError("(--help lists the options)");

try {
  await program.parseAsync();
} catch (error) {
  // A mistake of the operator is one line; a fault of ours keeps its stack.
  if (!HoneError.isInstance(error)) console.error(error);
  else if (process.argv.includes("--json")) console.error(JSON.stringify(error.toEnvelope()));
  else console.error(`hone: ${error.message}`);
  process.exitCode = 1;
}
