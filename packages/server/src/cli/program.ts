import { readFileSync } from "node:fs";
import { HoneError, printableLine } from "@hone/core";
import { Command, CommanderError } from "commander";
import { doctorCommand } from "./doctor.ts";
import { engineCommand } from "./engine.ts";
import { enginesCommand } from "./engines.ts";
import { exportCommand } from "./export.ts";
import { gcCommand } from "./gc.ts";
import { importCommand } from "./import.ts";
import { inspectCommand } from "./inspect.ts";
import { keysCommand } from "./keys.ts";
import { modelsCommand } from "./models.ts";
import { pinCommand, unpinCommand } from "./pin.ts";
import { rolloutsCommand } from "./rollouts.ts";
import { runsCommand } from "./runs.ts";
import { serveCommand } from "./serve.ts";
import { setupCommand } from "./setup.ts";

/** Runs a command line; gives the exit status. */
export async function runProgram(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    // Commander has already said what is wrong.
    if (error instanceof CommanderError) return error.exitCode;
    // A mistake of the operator is told in one line. An error of ours keeps its stack.
    if (!HoneError.isInstance(error)) console.error(error);
    else if (args.includes("--json")) console.error(JSON.stringify(error.toEnvelope()));
    else console.error(`hone: ${printableLine(error.message)}`);
    return 1;
  }
}

function createProgram(): Command {
  const manifest = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  ) as { version: string };
  const program = new Command("hone")
    .description("Trains the model behind a TypeScript agent.")
    .version(manifest.version)
    .showHelpAfterError("(--help lists the options)")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => console.log(text.trimEnd()),
      writeErr: (text) => console.error(text.trimEnd()),
    });
  const commands = [
    serveCommand(),
    setupCommand(),
    modelsCommand(),
    runsCommand(),
    rolloutsCommand(),
    inspectCommand(),
    exportCommand(),
    importCommand(),
    pinCommand(),
    unpinCommand(),
    gcCommand(),
    doctorCommand(),
    keysCommand(),
    engineCommand(),
    enginesCommand(),
  ];
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program));
  return program;
}
