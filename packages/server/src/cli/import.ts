import { randomBytes } from "node:crypto";
import {
  accessSync,
  constants,
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { join, resolve } from "node:path";
import {
  HoneError,
  isErrorCode,
  modelInfoSchema,
  modelNameSchema,
  operationInfoSchema,
  type OperationInfo,
  putModelSchema,
} from "@hone/core";
import { followOperation } from "@hone/transport";
import { type Command, InvalidArgumentError } from "commander";
import { z } from "zod";
import { connect, serverCommand, type Connection, type ServerFlags } from "./connection.ts";
import { describe } from "./inspect.ts";
import { printJson } from "./print.ts";

interface ImportFlags extends ServerFlags {
  model: string;
}

const files = ["adapter_config.json", "adapter_model.safetensors"];
const configSchema = z.looseObject({ r: z.int(), lora_alpha: z.number() });

export function importCommand(): Command {
  return serverCommand("import")
    .description("Makes a PEFT adapter the newest policy of a model")
    .argument("<folder>", "a PEFT folder: adapter_config.json and adapter_model.safetensors")
    .requiredOption(
      "--model <name>",
      "the model; it is made, in the adapter's shape, where there is none",
      nameOf,
    )
    .addHelpText(
      "after",
      `
The optimizer begins anew. The server has to be on this machine: it reads the adapter from its own disk.

Example:
  hone import ./adapter --model agent-2048`,
    )
    .action(async (folder: string, flags: ImportFlags) => {
      const connection = connect(flags);
      const source = resolve(folder);
      const config = readConfig(source);
      if (!connection.local) {
        throw new HoneError(
          `The server at ${connection.url} is not the one of the data directory here, and reads adapters from its own disk. Run this on its machine, with --data-dir.`,
          { code: "invalid_config" },
        );
      }
      await requireModel(connection, flags.model, config);
      const copy = join(
        connection.local.dataDir,
        "imports",
        `cli-${randomBytes(6).toString("hex")}`,
      );
      mkdirSync(copy, { recursive: true });
      let operation: OperationInfo;
      try {
        for (const name of files) copyFileSync(join(source, name), join(copy, name));
        operation = await run(connection, flags, copy);
      } finally {
        rmSync(copy, { recursive: true, force: true });
      }
      if (flags.json) printJson(operation);
      else if (operation.result) console.log(operation.result.policy);
      if (operation.status !== "succeeded") {
        throw failureOf(operation);
      }
    });
}

/** The adapter is at fault only where the server says so. */
function failureOf({ status, error }: OperationInfo): HoneError {
  if (error === null) return new HoneError(`The import was ${status}.`, { code: "aborted" });
  const { code, message, param } = error;
  return new HoneError(message, {
    ...{ code: isErrorCode(code) ? code : "internal_error", param: param ?? undefined },
  });
}

function readConfig(folder: string): z.output<typeof configSchema> {
  try {
    for (const name of files) {
      const file = join(folder, name);
      // Reading a pipe would wait for its writer for ever.
      if (!statSync(file).isFile()) throw new Error(`${name} is not a regular file`);
      accessSync(file, constants.R_OK);
    }
    return configSchema.parse(JSON.parse(readFileSync(join(folder, files[0] ?? ""), "utf8")));
  } catch (cause) {
    throw new HoneError(
      `${folder} is not a PEFT adapter: it needs ${files.join(" and ")} (${(cause as Error).message.split("\n")[0]}).`,
      { code: "bad_adapter", cause },
    );
  }
}

async function requireModel(
  connection: Connection,
  name: string,
  { r, lora_alpha: alpha }: z.output<typeof configSchema>,
): Promise<void> {
  try {
    await connection.get(modelInfoSchema, `/v1/models/${name}/state`);
  } catch (error) {
    if (!HoneError.isInstance(error) || error.code !== "model_not_found") throw error;
    const body = putModelSchema.parse({ lora: { r, alpha } });
    await connection.send(modelInfoSchema, "PUT", `/v1/models/${name}`, body);
    console.error(`made the model ${name} (r ${r}, alpha ${alpha})`);
  }
}

async function run(
  connection: Connection,
  flags: ImportFlags,
  path: string,
): Promise<OperationInfo> {
  const submitted = await connection.send(
    operationInfoSchema,
    "POST",
    `/v1/models/${flags.model}/operations`,
    { clientToken: `cli-${randomBytes(9).toString("hex")}`, op: { type: "import", path } },
  );
  for await (const event of followOperation(connection.transport, submitted.id)) {
    console.error(describe(event));
    if (event.type === "ended") return event.operation;
  }
  return connection.get(operationInfoSchema, `/v1/operations/${submitted.id}`);
}

function nameOf(text: string): string {
  const parsed = modelNameSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new InvalidArgumentError(
    `${parsed.error.issues[0]?.message ?? "It is not a model's name"}.`,
  );
}
