import type { ChildRegister } from "../supervise/orphans.ts";
import type { Deadlines } from "../supervise/supervisor.ts";
import { workerCommand, type WorkerOptions } from "../trainer/worker-command.ts";
import { readWorkerMemory } from "../trainer/worker-memory.ts";
import { keepChild, type KeptEngine, type Keeping } from "./kept-engine.ts";

/** The embedded engine in a process of its own, which generates while the worker trains. */
export interface EmbeddedApart extends KeptEngine {
  key: () => string;
  /** Throws while it is away. */
  baseURL: () => string;
  /** What it may hold of keys and values. 0 before it has started. @unit bytes */
  cacheBytes: () => number;
}

export function keepEmbeddedApart(
  options: Omit<Keeping, "name"> &
    WorkerOptions & {
      python: string;
      servedName: string;
      children: ChildRegister;
      deadlines?: Partial<Deadlines> | undefined;
    },
): EmbeddedApart {
  const { pool, log, children, deadlines, servedName: baseName } = options;
  let cacheBytes = 0;
  const kept = keepChild({
    ...{ name: "engine", kind: "embedded", pool, log },
    child: {
      ...workerCommand(options, { baseName, does: "generate" }),
      ...{ name: "engine", unavailable: "engine_unavailable", deadlines },
      onSpawn: (pid) => children.note("engine", pid),
    },
    async onStarted(baseURL, key) {
      cacheBytes = (await readWorkerMemory(baseURL, key)).kv_cache;
    },
  });
  return { ...kept, cacheBytes: () => cacheBytes };
}
