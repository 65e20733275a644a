import { rolloutModeSchema, rolloutStatusSchema, type RolloutSummary } from "@hone/core";
import { type Command, Option } from "commander";
import { connect, serverCommand, type ServerFlags } from "./connection.ts";
import { atLeastOne, wholeNumber } from "./number-options.ts";
import { onlyModel } from "./only-model.ts";
import { number, printJson, table, time } from "./print.ts";
import { rolloutsOf } from "./rollout-pages.ts";

interface RolloutsFlags extends ServerFlags {
  mode?: string | undefined;
  status?: string | undefined;
  step?: number | undefined;
  group?: string | undefined;
  operation?: string | undefined;
  limit: number;
}

export function rolloutsCommand(): Command {
  return serverCommand("rollouts")
    .description("Lists the rollouts of a model, those of evaluations too")
    .argument("[model]", "a model's name; it may be left out where there is one model only")
    .addOption(new Option("--mode <mode>", "only these").choices(rolloutModeSchema.options))
    .addOption(new Option("--status <status>", "only these").choices(rolloutStatusSchema.options))
    .option("--step <N>", "sampled from policy model@N", wholeNumber(0))
    .option("--group <id>", "of this group")
    .option("--operation <id>", "trained by this step")
    .option("--limit <number>", "how many, the newest", atLeastOne, 20)
    .addHelpText(
      "after",
      `
Examples:
  hone rollouts agent-2048
  hone rollouts agent-2048 --mode eval --step 12
  hone rollouts agent-2048 --status failed --json | jq '.[].error.message'
  hone inspect ro_77ab…            one of them: its transcript`,
    )
    .action(async (model: string | undefined, flags: RolloutsFlags) => {
      const connection = connect(flags);
      const name = model ?? (await onlyModel(connection));
      const { mode, status, step, group, operation } = flags;
      const query = { mode, status, step, group, operation };
      const { rollouts, more } = await rolloutsOf(connection, name, query, flags.limit);
      if (flags.json) {
        printJson(rollouts);
        return;
      }
      if (rollouts.length === 0) {
        const asked = Object.values(query).some((value) => value !== undefined);
        console.log(asked ? `No rollout of ${name} is like that.` : `No rollout of ${name} yet.`);
        return;
      }
      console.log(table(columns, rollouts.reverse().map(rowOf)));
      if (more) console.log(`(the newest ${rollouts.length}; --limit shows more)`);
    });
}

const columns = [
  { title: "ROLLOUT" },
  { title: "MODE" },
  { title: "STATUS" },
  { title: "POLICY" },
  { title: "GROUP" },
  { title: "REWARD", right: true },
  { title: "COMPLETIONS", right: true },
  { title: "TRAINED BY" },
  { title: "CREATED" },
];

function rowOf(rollout: RolloutSummary): string[] {
  const { id, mode, status, policy, group, reward, completions, trainedBy, createdAt } = rollout;
  return [
    id,
    mode,
    status,
    policy ?? "–",
    group ?? "",
    number(reward),
    String(completions),
    trainedBy ?? "",
    time(createdAt),
  ];
}
