import {
  deletedModelSchema,
  modelListSchema,
  operationListSchema,
  policyListSchema,
  type TrainResult,
} from "@hone/core";
import type { Command } from "commander";
import { connect, serverCommand, type Connection, type ServerFlags } from "./connection.ts";
import { bytes, number, printJson, table, time } from "./print.ts";

export function modelsCommand(): Command {
  return serverCommand("models")
    .description("Lists the models, or the policies of one")
    .argument("[model]", "a model's name")
    .addHelpText(
      "after",
      `
Examples:
  hone models                 every model: steps learnt and served, the last reward
  hone models agent-2048      its policies: which are kept and why, which are gone
  hone models rm agent-2048   deletes it`,
    )
    .action(async (model: string | undefined, flags: ServerFlags) => {
      const connection = connect(flags);
      if (model === undefined) await listModels(connection, flags);
      else await listPolicies(connection, model, flags);
    })
    .addCommand(removeCommand());
}

function removeCommand(): Command {
  return serverCommand("rm")
    .description(
      "Deletes a model with its policies, rollouts and operations; its name is not used again",
    )
    .argument("<model>", "a model's name")
    .option("--force", "also one in use: its operations are aborted, its open rollouts fail")
    .addHelpText("after", "\nExample:\n  hone models rm agent-2048")
    .action(async (model: string, _: unknown, command: Command) => {
      // The outer command has read the options that both have.
      const flags = command.optsWithGlobals<ServerFlags & { force?: boolean }>();
      const path = `/v1/models/${encodeURIComponent(model)}${flags.force ? "?force=true" : ""}`;
      const deleted = await connect(flags).send(deletedModelSchema, "DELETE", path);
      if (flags.json) printJson(deleted);
      else {
        console.log(
          `${deleted.id} is deleted. Its rollouts leave the database meanwhile; \`hone gc\` gives their space back.`,
        );
      }
    });
}

async function listModels(connection: Connection, flags: ServerFlags): Promise<void> {
  const { data, adapters } = await connection.get(modelListSchema, "/v1/states");
  const rows = await Promise.all(
    data.map(async (model) => ({ ...model, last: await lastStep(connection, model.name) })),
  );
  if (flags.json) {
    printJson(
      rows.map(({ last, ...model }) => ({ ...model, lastReward: last?.metrics["reward"] ?? null })),
    );
    return;
  }
  if (rows.length === 0) {
    console.log("No model yet: `hone.model({ name })` or `hone import` makes one.");
    return;
  }
  console.log(
    table(
      [
        { title: "MODEL" },
        { title: "BASE" },
        { title: "LORA" },
        { title: "LEARNT", right: true },
        { title: "SERVED", right: true },
        { title: "LAST REWARD", right: true },
        { title: "IN ENGINE", right: true },
        { title: "CREATED" },
      ],
      rows.map(({ name, base, lora, learnt, served, last, live, createdAt }) => [
        name,
        base,
        `r${lora.r} α${lora.alpha}`,
        String(learnt),
        served < 0 ? "–" : String(served),
        number(last?.metrics["reward"]),
        live && live.policies > 0 ? `${live.policies} (${bytes(live.bytes)})` : "–",
        time(createdAt),
      ]),
    ),
  );
  if (adapters) {
    console.log(
      `Policies take ${bytes(adapters.bytes)} in the engine; past ${bytes(adapters.maxBytes)} those not in use are unloaded until they are asked for.`,
    );
  }
}

/** The newest train operation that came to a result, among the last few. */
async function lastStep(connection: Connection, model: string): Promise<TrainResult | null> {
  const path = `/v1/models/${model}/operations?type=train&limit=10`;
  const { data } = await connection.get(operationListSchema, path);
  for (const { result } of data) if (result && "groups" in result) return result;
  return null;
}

async function listPolicies(
  connection: Connection,
  model: string,
  flags: ServerFlags,
): Promise<void> {
  const path = `/v1/models/${encodeURIComponent(model)}/policies`;
  const { data } = await connection.get(policyListSchema, path);
  if (flags.json) {
    printJson(data);
    return;
  }
  console.log(
    table(
      [
        { title: "POLICY" },
        { title: "IN ENGINE" },
        { title: "KEPT AS" },
        { title: "MADE BY" },
        { title: "CREATED" },
      ],
      data.map(({ id, live, keptAs, removedAt, operationId, createdAt }) => [
        id,
        live ? "yes" : "",
        removedAt === null ? keptAs.join(", ") : `removed ${time(removedAt)}`,
        operationId,
        time(createdAt),
      ]),
    ),
  );
}
