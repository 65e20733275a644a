#!/usr/bin/env node
import process from "node:process";
import { parseArgs } from "node:util";
import { HoneError, printable } from "@hone/core";
import { attackCommand } from "./attack-command.ts";
import { checkCommand } from "./check-command.ts";

const usage = `ruler check FILE --reward MODULE[#EXPORT]   run a reward function over trajectories (JSONL)
  --json                      print the report as JSON

ruler attack --judge JUDGE                   what 60 and more attacks do to a judge's scores
  --judge JUDGE               openai/o4-mini, openrouter/…, hone/<model>, or a model with --base-url
  --base-url URL              an OpenAI-compatible server; its key from JUDGE_API_KEY
  --family NAME               only this family; may be given again
  --rubric FILE               instead of the default one
  --passes N                  orders that each group is judged in
  --max-lift X                exit with 1 where a family's mean lift is above X (default 0.05)
  --json                      print the report as JSON`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      reward: { type: "string" },
      judge: { type: "string" },
      "base-url": { type: "string" },
      family: { type: "string", multiple: true },
      rubric: { type: "string" },
      passes: { type: "string" },
      "max-lift": { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const [command, ...rest] = positionals;
  if (values.help || command === undefined) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  if (command === "check") {
    const [file] = rest;
    if (file === undefined || !values.reward) return misused("check needs FILE and --reward.");
    return await checkCommand({ file, reward: values.reward, json: values.json });
  }
  if (command === "attack") {
    if (!values.judge) return misused("attack needs --judge.");
    return await attackCommand({
      judge: values.judge,
      baseURL: values["base-url"],
      families: values.family,
      rubricFile: values.rubric,
      passes: values.passes === undefined ? undefined : Number(values.passes),
      maxLift: values["max-lift"] === undefined ? 0.05 : Number(values["max-lift"]),
      json: values.json,
    });
  }
  return misused(`There is no command "${command}".`);
}

function misused(message: string): number {
  console.error(`${message}\n\n${usage}`);
  return 2;
}

try {
  process.exitCode = await main();
} catch (error) {
  const known = HoneError.isInstance(error) || error instanceof TypeError;
  console.error(known ? printable(error.message) : error);
  process.exitCode = known ? 2 : 1;
}
