import { engineListSchema, engineTokenSchema, removedEngineSchema } from "@hone/core";
import type { EngineInfo } from "@hone/core";
import type { Command } from "commander";
import { connect, serverCommand, type ServerFlags } from "./connection.ts";
import { wholeNumber } from "./number-options.ts";
import { printJson, table, time } from "./print.ts";

interface EnginesFlags extends ServerFlags {
  expiresIn: number;
}

const mostMinutes = 7 * 24 * 60;

export function enginesCommand(): Command {
  const command = serverCommand("engines")
    .description("Lists the engines of a server, lets one more join, or removes one")
    .argument(
      "[action]",
      "token: lets one engine join, once; remove: an engine's key is worth nothing",
    )
    .argument("[name]", "the engine to remove")
    .option(
      "--expires-in <minutes>",
      "how long a token can be used",
      wholeNumber(1, mostMinutes),
      60,
    )
    .addHelpText(
      "after",
      `
Examples:
  hone engines                    name, state, policies and address of each
  hone engines token              prints the line to export where the engine shall run
  hone engines remove joined-2    it gets no traffic any more and cannot come back without a new token`,
    )
    .action(async (action: string | undefined, name: string | undefined, flags: EnginesFlags) => {
      if (action === undefined) await list(flags);
      else if (action === "token" && name === undefined) await makeToken(flags);
      else if (action === "remove" && name !== undefined) await remove(flags, name);
      else if (action === "remove") command.error("error: name the engine to remove");
      else command.error(`error: engines knows the actions "token" and "remove", not "${action}"`);
    });
  return command;
}

async function list(flags: EnginesFlags): Promise<void> {
  const { data } = await connect(flags).get(engineListSchema, "/v1/engines");
  if (flags.json) return printJson(data);
  const columns = ["name", "state", "generation", "policies", "url", "why"];
  console.log(
    table(
      columns.map((title) => ({ title, right: title === "generation" })),
      data.map(rowOf),
    ),
  );
}

const mostNamed = 4;

function rowOf({ name, state, generation, policies, url, reason }: EngineInfo): string[] {
  const named = policies.slice(0, mostNamed).join(" ");
  const more = policies.length > mostNamed ? ` and ${policies.length - mostNamed} more` : "";
  return [name, state, String(generation ?? "–"), `${named}${more}`, url ?? "–", reason ?? ""];
}

async function makeToken(flags: EnginesFlags): Promise<void> {
  const connection = connect(flags);
  const body = { expiresIn: flags.expiresIn * 60 };
  const made = await connection.send(engineTokenSchema, "POST", "/v1/engines/tokens", body);
  if (flags.json) return printJson(made);
  console.error(
    `hone: one engine can join with it until ${time(made.expiresAt)}: hone engine --join ${connection.url}`,
  );
  console.log(`export HONE_JOIN_TOKEN=${made.token}`);
}

async function remove(flags: EnginesFlags, name: string): Promise<void> {
  const path = `/v1/engines/${encodeURIComponent(name)}`;
  const removed = await connect(flags).send(removedEngineSchema, "DELETE", path);
  if (flags.json) printJson(removed);
  else console.log(`${name} is removed`);
}
