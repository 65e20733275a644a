import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import type { Quantize } from "../ports/trainer.ts";
import { pythonModule } from "../setup/python-module.ts";

export interface WorkerOptions {
  base: string;
  dataDir: string;
  device: "cpu" | "cuda";
  /** @default what the worker finds fit for the base and the device */
  dtype?: "float32" | "bfloat16" | undefined;
  quantize?: Quantize | undefined;
  maxModelLen?: number | undefined;
  kvCacheMib?: number | undefined;
  engineShare?: number | undefined;
  recompute?: "auto" | "on" | "off" | undefined;
  /** How parts of the work are computed: `name=way,…`, read by the worker. @default the device decides */
  paths?: string | undefined;
  /** Folder or hub id by name. */
  rewardModels?: Readonly<Record<string, string>> | undefined;
  /** Python files, each with an objective of the operator's own. */
  objectives?: readonly string[] | undefined;
}

/**
 * What a worker does: both, or only one of them. `train-beside` is to train while another worker on this machine
 * generates, for which it leaves memory.
 */
type WorkerDoes = "both" | "train" | "train-beside" | "generate";

/** How a worker is started. */
export function workerCommand(
  options: WorkerOptions & { python: string },
  worker: { baseName: string; does: WorkerDoes; releasesAfterStep?: boolean },
  machine = { cores: availableParallelism(), given: process.env["OMP_NUM_THREADS"] },
): ReturnType<typeof pythonModule> {
  const command = pythonModule(options, "hone_worker.worker", workerArguments(options, worker));
  const isOneOfTwo = worker.does === "generate" || worker.does === "train-beside";
  if (!isOneOfTwo) return command;
  return { ...command, env: { ...command.env, OMP_NUM_THREADS: halfTheCores(machine) } };
}

function workerArguments(
  options: WorkerOptions,
  {
    baseName,
    does,
    releasesAfterStep,
  }: { baseName: string; does: WorkerDoes; releasesAfterStep?: boolean },
): string[] {
  // What only the trainer needs, one that generates is not given.
  const { rewardModels = {}, objectives = [] } = does === "generate" ? {} : options;
  return [
    ...["--base", options.base, "--served-name", baseName],
    ...["--device", options.device, "--dtype", options.dtype ?? "auto"],
    ...flag("--quantize", options.quantize),
    ...flag("--max-model-len", options.maxModelLen),
    ...flag("--cache-mib", options.kvCacheMib),
    ...flag("--engine-share", options.engineShare),
    ...flag("--recompute", options.recompute),
    ...flag("--paths", options.paths),
    // A redone step gives the same bits with the same number of threads.
    ...(does === "generate"
      ? ["--threads-train", "1"]
      : ["--threads-file", join(resolve(options.dataDir), "threads.json")]),
    ...Object.entries(rewardModels).flatMap(([name, source]) => [
      "--reward-model",
      `${name}=${source}`,
    ]),
    ...(releasesAfterStep ? ["--release-after-step"] : []),
    ...objectives.flatMap((file) => ["--objectives", resolve(file)]),
    ...{
      both: [],
      train: ["--no-engine"],
      "train-beside": ["--no-engine", "--spare-cache"],
      generate: [],
    }[does],
  ];
}

/** None where nothing was asked for. */
export function flag(name: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [name, String(value)];
}

/**
 * What each of two processes that compute at the same time may use of the cores. Each measures at its start how many
 * threads are fastest, and does not know of the other. The operator's own number is kept where it is smaller.
 */
function halfTheCores({ cores, given }: { cores: number; given: string | undefined }): string {
  const half = Math.max(1, Math.floor(cores / 2));
  const wanted = Number(given);
  return String(wanted >= 1 ? Math.min(wanted, half) : half);
}
