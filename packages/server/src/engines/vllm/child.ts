import { join } from "node:path";
import { cacheDir, workerDir } from "../../setup/paths.ts";
import type { ChildOptions } from "../../supervise/child.ts";
import { cardsOf, givenFlag } from "./flags.ts";
import { loraTargets, slotBytes } from "./lora-targets.ts";
import { slotsFor } from "./slots.ts";

interface VllmOptions {
  /** The Python of an environment that has vLLM. */
  python: string;
  /** Folder or hub id. */
  base: string;
  /** The name that the bare base answers to. */
  servedName: string;
  /** @default "float32" */
  dtype?: "float32" | "bfloat16" | undefined;
  /** @unit tokens @default what the base allows */
  maxModelLen?: number | undefined;
  /** @default "cpu" */
  device?: "cpu" | "cuda" | undefined;
  /** How many policies it samples from at a time, asked at each start. Requests for others wait. @default for one model */
  maxLoras?: number | (() => number) | undefined;
  /** The highest rank of the models that there are, asked at each start. There is room for 16 in any case. */
  maxLoraRank?: (() => number) | undefined;
  /** The share of its card that it may take, asked at each start. @default vLLM's own */
  memoryShare?: (() => number | null) | undefined;
  /** It can be put to sleep (`sleep.ts`). Without a GPU it answers as if, and gives no memory away. @default false */
  sleeps?: boolean | undefined;
  /** Flags of the operator's own, which come last and so win. */
  flags?: readonly string[] | undefined;
  /** Added to its environment, before what is set here. */
  env?: Readonly<Record<string, string>> | undefined;
}

/**
 * vLLM as a child of this server: for `startChild`, or with `readVllmHealth` for `supervise`. `hone_vllm.py` adds
 * port and key, tells what a slow start is at, and says that it is ready once the first token has been sampled.
 */
export function vllmChild(options: VllmOptions): Omit<ChildOptions, "log"> {
  const { maxModelLen } = options;
  return {
    name: "vLLM",
    command: options.python,
    args: () => [
      join(workerDir, "hone_vllm.py"),
      ...["--model", options.base, "--served-model-name", options.servedName],
      ...["--dtype", options.dtype ?? "float32", "--lora-dtype", "auto"],
      ...(maxModelLen === undefined ? [] : ["--max-model-len", String(maxModelLen)]),
      ...["--enable-lora", "--max-loras", String(slotsOf(options.maxLoras))],
      ...["--max-lora-rank", String(slotRank(options.maxLoraRank?.() ?? 0))],
      // Of the distribution that was sampled from, which is the request's alone.
      ...["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"],
      ...["--structured-outputs-config.backend", "guidance"],
      ...["--structured-outputs-config.disable_any_whitespace", "true"],
      // Without a GPU compiling takes minutes, and there are no graphs to gain.
      ...(options.device === "cuda" ? [] : ["--enforce-eager"]),
      ...(options.device === "cuda" ? [] : executorFlag(options)),
      ...(options.device === "cuda" ? [] : ["--lora-target-modules", ...loraTargets(options.base)]),
      "--disable-uvicorn-access-log",
      // The routes are of vLLM's development mode; `hone_vllm.py` closes all others of it.
      ...(options.sleeps ? ["--middleware", "hone_vllm.SleepRoutes"] : []),
      ...(options.sleeps && options.device === "cuda" ? ["--enable-sleep-mode"] : []),
      ...shareFlag(options.memoryShare?.() ?? null),
      ...(options.flags ?? []),
    ],
    env: {
      VLLM_CPU_KVCACHE_SPACE: process.env["VLLM_CPU_KVCACHE_SPACE"] ?? "1",
      VLLM_CPU_OMP_THREADS_BIND: threadsBind(),
      HONE_COMPILED: join(cacheDir(), "compiled"),
      ...options.env,
      VLLM_ALLOW_RUNTIME_LORA_UPDATING: "1",
      ...(options.sleeps && { VLLM_SERVER_DEV_MODE: "1" }),
      VLLM_NO_USAGE_STATS: "1",
      DO_NOT_TRACK: "1",
    },
    unavailable: "engine_unavailable",
    readyTimeoutMs: 240_000,
    // It drains open streams; what is left then of its group holds the model's memory.
    stopTimeoutMs: 8_000,
  };
}

function slotsOf(given: VllmOptions["maxLoras"]): number {
  return (typeof given === "function" ? given() : given) ?? slotsFor({ models: 1 });
}

/** What its policies take on a card, with these options, as far as the base's files tell. @unit bytes */
export function slotsMemory(
  options: Pick<VllmOptions, "base" | "dtype" | "maxLoras" | "maxLoraRank" | "flags">,
): number {
  const { flags = [] } = options;
  const slots = Number(givenFlag(flags, "--max-loras")) || slotsOf(options.maxLoras);
  const rank =
    Number(givenFlag(flags, "--max-lora-rank")) || slotRank(options.maxLoraRank?.() ?? 0);
  return slots * slotBytes(options.base, rank, options.dtype ?? "float32");
}

const threadsBind = (): string => process.env["VLLM_CPU_OMP_THREADS_BIND"] ?? "nobind";

/**
 * On a processor vLLM computes in a process of its own beside the one that schedules, so that it can bind its threads to
 * cores. Each waits for the other by asking over and over, and on few cores takes them from whoever has work. Where no
 * threads are bound one process does both, as on a single card (docs/decisions/0067).
 */
function executorFlag({ flags = [] }: VllmOptions): string[] {
  if (threadsBind() !== "nobind" || cardsOf(flags) > 1) return [];
  // By its path: vLLM replaces the short name.
  return ["--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"];
}

function shareFlag(share: number | null): string[] {
  return share === null ? [] : ["--gpu-memory-utilization", String(share)];
}

/** The ranks that vLLM has slots for. */
const ranks = [16, 32, 64, 128, 256, 320, 512];

export function slotRank(rank: number): number {
  return ranks.find((one) => one >= rank) ?? rank;
}
