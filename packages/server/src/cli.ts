#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { HoneError } from "@hone/core";
import { Command } from "commander";
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
  .showHelpAfterError("(--help lists the options)");

try {
  await program.parseAsync();
} catch (error) {
  // A mistake of the operator is one line; a fault of ours keeps its stack.
  console.error(HoneError.isInstance(error) ? `hone: ${error.message}` : error);
  process.exitCode = 1;
}
