import { operationListSchema, type OperationSummary } from "@hone/core";
import type { Command } from "commander";
import { connect, serverCommand, type ServerFlags } from "./connection.ts";
import { wholeNumber } from "./number-options.ts";
import { onlyModel } from "./only-model.ts";
import { number, printJson, seconds, table } from "./print.ts";

export function runsCommand(): Command {
  return serverCommand("runs")
    .description("Lists the operations of a model: steps, imports, publishes")
    .argument("[model]", "a model's name; it may be left out where there is one model only")
    .option("--limit <number>", "how many, the newest (at most 100)", wholeNumber(1, 100), 20)
    .addHelpText(
      "after",
      `
Examples:
  hone runs agent-2048
  hone runs agent-2048 --limit 100 --json | jq '.[].result.metrics.reward'`,
    )
    .action(async (model: string | undefined, flags: ServerFlags & { limit: number }) => {
      const connection = connect(flags);
      const name = model ?? (await onlyModel(connection));
      const path = `/v1/models/${encodeURIComponent(name)}/operations?limit=${flags.limit}`;
      const { data, has_more } = await connection.get(operationListSchema, path);
      if (flags.json) {
        printJson(data);
        return;
      }
      if (data.length === 0) {
        console.log(`No operation of ${name} yet.`);
        return;
      }
      // Oldest first, as a run is read.
      console.log(table(columns, data.reverse().map(rowOf)));
      if (has_more) console.log(`(the newest ${data.length}; --limit shows more)`);
    });
}

const columns = [
  { title: "OPERATION" },
  { title: "TYPE" },
  { title: "STATUS" },
  { title: "STEP", right: true },
  { title: "REWARD", right: true },
  { title: "LOSS", right: true },
  { title: "TOKENS", right: true },
  { title: "SECONDS", right: true },
  { title: "DROPPED" },
];

function rowOf(operation: OperationSummary): string[] {
  const { id, type, status, fromStep, result, error, startedAt, endedAt } = operation;
  const metrics = result && "metrics" in result ? result.metrics : {};
  const from = fromStep === null ? "–" : String(fromStep);
  const trained = result !== null && result.step !== fromStep;
  return [
    id,
    type,
    error ? `${status}: ${error.code}` : status,
    trained ? `${from}→${result.step}` : from,
    number(metrics["reward"]),
    number(metrics["loss"]),
    number(metrics["train_tokens"]),
    seconds(startedAt === null || endedAt === null ? null : endedAt - startedAt),
    droppedOf(operation),
  ];
}

/** Groups that trained nothing, members left out of those that did, and answers left out of theirs, by reason. */
function droppedOf({ result }: OperationSummary): string {
  if (!result || !("groups" in result)) return "";
  const groups = Object.entries(result.reasons).map(([reason, count]) => `${count} ${reason}`);
  const rollouts = summed(
    result.groups.map(({ dropped }) => dropped),
    "rollouts",
  );
  const answers = summed(
    result.groups.map(({ masked }) => masked ?? {}),
    "answers",
  );
  return [...groups, ...rollouts, ...answers].join(", ");
}

function summed(counts: readonly Partial<Record<string, number>>[], what: string): string[] {
  const sums = new Map<string, number>();
  for (const [reason, n = 0] of counts.flatMap((one) => Object.entries(one))) {
    sums.set(reason, (sums.get(reason) ?? 0) + n);
  }
  return [...sums].map(([reason, n]) => `${n} ${what} ${reason}`);
}
