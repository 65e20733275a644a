import { HoneError, rotatedKeySchema, type RotatedKey } from "@hone/core";
import type { Command } from "commander";
import { serverKey } from "../http/key-file.ts";
import { lockDataDir } from "../store/lock.ts";
import { connectIfRunning, dataDirOf, serverCommand, type ServerFlags } from "./connection.ts";
import { printJson } from "./print.ts";

export function keysCommand(): Command {
  const command = serverCommand("keys")
    .description("Shows where the server's key is, or makes a new one")
    .argument("[action]", "rotate: a new key; the old one is refused from then on")
    .addHelpText(
      "after",
      `
A running server takes the new key at once and need not be restarted; requests under way go on.

Examples:
  hone keys                 the file that holds the key
  hone keys rotate          a new key; prints the line to export`,
    )
    .action(async (action: string | undefined, flags: ServerFlags) => {
      if (action === undefined) show(flags);
      else if (action === "rotate") await rotate(flags);
      else command.error(`error: keys knows the action "rotate", not "${action}"`);
    });
  return command;
}

function show(flags: ServerFlags): void {
  if (flags.url !== undefined) {
    throw new HoneError(
      "--url names a server, and the file of a key lies in a data directory. Leave --url out, and name the folder with --data-dir if it is not the usual one.",
      { code: "invalid_config", param: "url" },
    );
  }
  const { file } = serverKey(dataDirOf(flags), "", false);
  if (flags.json) printJson({ file });
  else console.log(file);
}

async function rotate(flags: ServerFlags): Promise<void> {
  const connection = await connectIfRunning(flags);
  const rotated = connection
    ? await connection.send(rotatedKeySchema, "POST", "/v1/keys/rotate")
    : rotateOffline(dataDirOf(flags));
  if (flags.json) printJson(rotated);
  else console.log(`export HONE_API_KEY=${rotated.key}`);
}

function rotateOffline(dataDir: string): RotatedKey {
  const current = serverKey(dataDir, "", false);
  // A server that is just starting has read the old key and would go on with it.
  const lock = lockDataDir(dataDir);
  try {
    return { object: "hone.key", key: current.rotate(), file: current.file };
  } finally {
    lock.release();
  }
}
