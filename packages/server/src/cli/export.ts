import { createHash } from "node:crypto";
import {
  createWriteStream,
  existsSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
} from "node:fs";
import { resolve } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { HoneError, healthSchema, policyDetailSchema, type PolicyDetail } from "@hone/core";
import { makeFolder } from "@hone/transport/node";
import type { Command } from "commander";
import { headName } from "../ports/live-set.ts";
import { mergeAdapter } from "../setup/merge.ts";
import { connect, serverCommand, type Connection, type ServerFlags } from "./connection.ts";
import { policyRefOf, type PolicyRef } from "./policy-ref.ts";
import { bytes, printJson } from "./print.ts";

interface ExportFlags extends ServerFlags {
  merged?: boolean | undefined;
  classifier?: boolean | undefined;
  base?: string | undefined;
}

export function exportCommand(): Command {
  return serverCommand("export")
    .description("Writes a policy into a folder: PEFT's adapter, or a whole model")
    .argument("<policy>", "model@N", policyRefOf)
    .argument("<folder>", "a new folder, or an empty one")
    .option("--merged", "a copy of the base with the adapter in its weights, as the hub has models")
    .option(
      "--classifier",
      "of a reward model (bradley_terry): the merged model with its head, as transformers' sequence classifiers are",
    )
    .option(
      "--base <folder|id>",
      "with --merged or --classifier: the base (default: what the server on this machine serves)",
    )
    .addHelpText(
      "after",
      `
Examples:
  hone export agent-2048@12 ./adapter            PEFT, vLLM and transformers load it over the base
  hone export agent-2048@12 ./model --merged     any program loads it; the base stays as it is
  hone export critic@10 ./critic --classifier    AutoModelForSequenceClassification and serve --reward-model load it`,
    )
    .action(async (ref: PolicyRef, given: string, flags: ExportFlags) => {
      const whole = flags.merged || flags.classifier;
      if (flags.base !== undefined && !whole) {
        throw new HoneError(
          "--base is for --merged and --classifier: an adapter alone has no base in it. Leave it out, or add one of them.",
          { code: "invalid_config", param: "base" },
        );
      }
      const folder = resolve(given);
      requireEmpty(folder);
      const connection = connect(flags);
      const { model, step } = ref;
      const policy = await connection.get(
        policyDetailSchema,
        `/v1/models/${model}/policies/${step}`,
      );
      // Checked here, before the part that takes minutes.
      if (flags.classifier && policy.removedAt === null && !(headName in policy.files)) {
        throw new HoneError(
          `${policy.id} has no head that gives scores. Export it without --classifier, or train one with model.bradleyTerry(pairs).`,
          { code: "invalid_config" },
        );
      }
      const base = whole ? await baseOf(connection, policy, flags) : null;
      // If it is a link, the folder behind it is replaced.
      const target = existsSync(folder) ? realpathSync(folder) : folder;
      const partial = `${target}.partial-${process.pid}`;
      try {
        const files = [...adapterFiles, ...(flags.classifier ? [headName] : [])];
        await download(connection, policy, ref, partial, files);
        if (base !== null) {
          await mergeAdapter({
            base,
            adapter: partial,
            folder: `${partial}-merged`,
            classifier: flags.classifier,
            say: (line) => console.error(line),
          });
        }
        moveTo(target, base === null ? partial : `${partial}-merged`);
      } finally {
        for (const rest of [partial, `${partial}-merged`])
          rmSync(rest, { recursive: true, force: true });
      }
      if (flags.json)
        printJson({
          policy: policy.id,
          folder,
          merged: flags.merged ?? false,
          classifier: flags.classifier ?? false,
        });
      else console.log(folder);
    });
}

const adapterFiles = ["adapter_config.json", "adapter_model.safetensors"];

/**
 * Downloads the files and compares each with the hash of the manifest, so that what is exported is what was
 * trained.
 */
async function download(
  connection: Connection,
  policy: PolicyDetail,
  { model, step }: PolicyRef,
  folder: string,
  files: readonly string[],
): Promise<void> {
  if (policy.removedAt !== null) {
    throw new HoneError(`${policy.id} is no more: retention removed it. Export a newer one.`, {
      code: "policy_not_found",
    });
  }
  makeFolder(folder);
  for (const name of files) {
    const expected = policy.files[name];
    if (!expected) {
      throw new HoneError(`${policy.id} has no ${name}. Export another policy.`, {
        code: "bad_adapter",
      });
    }
    console.error(`${name}: ${bytes(expected.bytes)}`);
    const { body } = await connection.open(`/v1/models/${model}/policies/${step}/files/${name}`);
    if (!body) throw new HoneError("The server sent no file.", { code: "invalid_response" });
    const hash = createHash("sha256");
    const count = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        done(null, chunk);
      },
    });
    await pipeline(Readable.fromWeb(body as never), count, createWriteStream(`${folder}/${name}`));
    if (hash.digest("hex") === expected.sha256) continue;
    throw new HoneError(
      `${name} of ${policy.id} did not arrive as it was written. Export it again.`,
      {
        code: "bad_adapter",
      },
    );
  }
}

/** The base that the policy was trained on, as the operator or the server on this machine names it. */
async function baseOf(
  connection: Connection,
  policy: PolicyDetail,
  flags: ExportFlags,
): Promise<string> {
  if (flags.base !== undefined) return flags.base;
  const trained = `Name the base with --base: ${policy.id} was trained on "${policy.base}"`;
  if (!connection.local) {
    throw new HoneError(`${trained}, and the server is not of this machine.`, {
      code: "invalid_config",
    });
  }
  // The server may have been started again with another base since the policy was trained.
  const served = await servedBase(connection);
  if (served === policy.base) return connection.local.announcement.base;
  const now =
    served === null
      ? "the server does not say what it serves now"
      : `the server serves "${served}" now`;
  throw new HoneError(`${trained}, and ${now}.`, { code: "invalid_config" });
}

/** Null if the server is not well: its response is an error then. */
async function servedBase(connection: Connection): Promise<string | null> {
  try {
    return (await connection.get(healthSchema, "/health")).base;
  } catch (error) {
    if (HoneError.isInstance(error) && error.status === 503) return null;
    throw error;
  }
}

/** Only an empty folder is replaced, because somebody may have put files there during the merge. */
function moveTo(folder: string, finished: string): void {
  try {
    if (existsSync(folder)) rmdirSync(folder);
  } catch (cause) {
    throw new HoneError(
      `${folder} is no longer empty, and what lies in it was left as it is. Export into a new folder.`,
      { code: "invalid_config", cause },
    );
  }
  renameSync(finished, folder);
}

/** Tried, because rights do not say where the system lets nobody make anything. Its parents stay. */
function requireEmpty(folder: string): void {
  const isThere = existsSync(folder);
  makeFolder(folder);
  if (!isThere) {
    rmdirSync(folder);
    return;
  }
  if (readdirSync(folder).length === 0) return;
  throw new HoneError(`${folder} is not empty. Name a new folder.`, { code: "invalid_config" });
}
