import { HoneError } from "@hone/core";
import type { AddressRule } from "../addresses.ts";
import { createHttpEngine } from "../http-engine.ts";
import type { Announcement, ServedBaseOnWire } from "./wire.ts";

/** Throws why an engine that announces itself so cannot serve this server's policies. */
export function checkFit(name: string, given: Announcement, base: ServedBaseOnWire): void {
  const mismatch = (message: string): HoneError =>
    new HoneError(`${message} (engine ${name})`, { code: "base_mismatch", param: "base" });
  if (given.base.name !== base.name) {
    throw mismatch(
      `The engine serves "${given.base.name}", this server "${base.name}". Start it with the same base and --served-model-name ${base.name}.`,
    );
  }
  const [theirs, ours] = [given.base.fingerprint, base.fingerprint];
  if (theirs !== null && ours !== null && theirs !== ours) {
    throw mismatch(`The engine's files of "${base.name}" are not those of this server.`);
  }
  if (given.maxModelLen < base.maxModelLen) {
    throw mismatch(
      `The engine takes ${given.maxModelLen} tokens, this server's requests may have ${base.maxModelLen}. Start the engine with --max-model-len ${base.maxModelLen}, or the server with a smaller one.`,
    );
  }
  if (given.maxRank !== null && given.maxRank < base.rank) {
    throw mismatch(
      `The engine takes adapters up to rank ${given.maxRank}, a model here has ${base.rank}. Start it with --max-lora-rank ${base.rank}.`,
    );
  }
}

/** Whether this server reaches the sidecar where it says that it is, and the engine answers behind it. */
export async function checkReach(
  { url, key, base }: Announcement,
  { lookup }: AddressRule,
): Promise<void> {
  const engine = createHttpEngine({
    ...{ kind: "vllm", controlTimeoutMs: 5_000, lookup },
    baseURL: () => url,
    key: () => key,
  });
  try {
    const info = await engine.info();
    if (info.base === base.name) return;
    throw new HoneError(`another engine answers there, which serves "${info.base}"`, {
      code: "engine_error",
    });
  } catch (cause) {
    const code = (cause as { cause?: { code?: unknown } }).cause?.code;
    const why = typeof code === "string" ? code : (cause as Error).message.replace(/\.$/, "");
    throw new HoneError(
      `This server cannot use the engine at ${new URL(url).origin}: ${why}. Give \`hone engine\` a --listen address and an --advertise URL that the server reaches.`,
      { code: "engine_unavailable", cause, retryAfterMs: 2_000 },
    );
  } finally {
    await engine.close();
  }
}
