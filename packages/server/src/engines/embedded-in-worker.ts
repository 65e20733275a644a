import type { Supervised } from "../supervise/supervisor.ts";
import { createHttpEngine, type HttpEngine } from "./http-engine.ts";
import type { Replica } from "./pool.ts";

/** The embedded engine in the trainer's process, which its supervisor looks after. */
export function embeddedIn(worker: Supervised): Replica & { engine: HttpEngine } {
  const { rawBaseURL: baseURL, key } = worker;
  return {
    name: "engine",
    engine: createHttpEngine({ kind: "embedded", baseURL, key }),
    requireUp: () => worker.baseURL(),
    onFenced: () => worker.doubt(),
  };
}
