import type { Logger } from "pino";
import { untestedVllm } from "../../setup/vllm-versions.ts";
import type { HttpEngine } from "../http-engine.ts";

/** Which release an engine is of, looked at whenever it has started or come back. */
export interface Release {
  /** For the engine's line in `GET /health`; empty until it has told. */
  shown(): { version?: string };
  /** Warns of one that Hone was not tested with. Never rejects: an engine that tells nothing works all the same. */
  look(): Promise<void>;
}

export function releaseOf(options: {
  name: string;
  engine: Pick<HttpEngine, "version">;
  log: Logger;
}): Release {
  const { name, engine, log } = options;
  let version: string | null = null;
  return {
    shown: () => (version === null ? {} : { version }),
    async look() {
      const told = await engine.version().catch(() => null);
      if (told === null || told === version) return;
      version = told;
      const untested = untestedVllm(told);
      if (untested !== null) log.warn({ engine: name, version: told }, untested);
    },
  };
}
