import { availableParallelism } from "node:os";
import type { Logger } from "pino";
import { workerDir } from "./setup/paths.ts";
import { supervise, type Supervised } from "./supervise/supervisor.ts";

export interface ChildrenOptions {
  python: string;
  base: string;
  servedName: string;
  renderer: string;
  device: "cpu" | "cuda";
  dtype: "float32" | "bfloat16";
  maxModelLen?: number | undefined;
  /** Another engine generates: the worker only trains. */
  trainOnly: boolean;
  onWorkerReady: () => Promise<void>;
  log: Logger;
}

/** The two processes behind the server, kept alive. */
export function createChildren(options: ChildrenOptions): {
  renderer: Supervised;
  worker: Supervised;
} {
  const { python: command, base, log } = options;
  // Few cores are shared by many threads: none may spin while it waits, and tokenizers need one.
  const env = {
    PYTHONPATH: workerDir,
    PYTHONUNBUFFERED: "1",
    OMP_WAIT_POLICY: "passive",
    RAYON_NUM_THREADS: "1",
    TOKENIZERS_PARALLELISM: "false",
  };
  const renderer = supervise({
    name: "renderer",
    command,
    args: ["-m", "hone_worker.renderer", "--base", base, "--renderer", options.renderer],
    env: { ...env, OMP_NUM_THREADS: "1" },
    unavailable: "renderer_unavailable",
    log,
  });
  const args = ["-m", "hone_worker.worker", "--base", base, "--served-name", options.servedName];
  args.push("--device", options.device, "--dtype", options.dtype);
  args.push("--threads-train", String(Math.min(2, availableParallelism())));
  if (options.maxModelLen !== undefined) args.push("--max-model-len", String(options.maxModelLen));
  if (options.trainOnly) args.push("--no-engine");
  const worker = supervise({
    name: "worker",
    command,
    args,
    env,
    unavailable: "worker_unavailable",
    onReady: options.onWorkerReady,
    log,
  });
  return { renderer, worker };
}
