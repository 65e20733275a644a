import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { HoneError } from "@hone/core";
import { baseFingerprint } from "../base-fingerprint.ts";
import { baseFolder, isHubId } from "../base-folder.ts";
import type { ServedBaseOnWire } from "../joined/wire.ts";
import { shapesIn } from "./safetensors-file.ts";
import type { SidecarOptions } from "./sidecar-options.ts";

/** The server's base as this machine has it. */
export interface LocalBase {
  /** What vLLM is given: a folder, or a hub id. */
  source: string;
  /** Null where its files are not here, as those of a hub id before vLLM has fetched them. */
  fingerprint: string | null;
  /** Of its tensors, by name; empty where its files are not here. */
  shapes: ReadonlyMap<string, readonly number[]>;
}

/** Throws why what is here cannot be the server's base. */
export async function lookAtBase(
  { base, engine }: Pick<SidecarOptions, "base" | "engine">,
  served: ServedBaseOnWire,
): Promise<LocalBase> {
  if (served.quantize !== null) {
    throw new HoneError(
      "The server holds its base in 4 bits. What vLLM serves has other weights, so its samples would not be those of the policy that is trained.",
      { code: "base_mismatch", param: "base" },
    );
  }
  const given = base ?? served.name;
  const isOwn = "python" in engine;
  const isFolder = existsSync(given);
  if (!isFolder && isOwn && !isHubId(given)) {
    throw new HoneError(
      `"${given}" is neither a folder nor a hub id. Give the base's folder on this machine as --base.`,
      { code: "invalid_config", param: "base" },
    );
  }
  // A vLLM that others run may have its files elsewhere, unless they say that it is these.
  const folder = isFolder || isOwn || base !== undefined ? baseFolder(given) : null;
  const fingerprint = folder === null ? null : await baseFingerprint(folder);
  if (fingerprint !== null && served.fingerprint !== null && fingerprint !== served.fingerprint) {
    throw new HoneError(
      `The files in ${folder} are not those of the server's base "${served.name}". Give the same base.`,
      { code: "base_mismatch", param: "base" },
    );
  }
  return {
    ...{ source: isFolder ? resolve(given) : given, fingerprint },
    shapes: folder === null ? new Map() : await shapesIn(folder),
  };
}

/** What the base's weights take in an engine that computes in this type; 0 where its files are not here. */
export function baseBytes({ shapes }: LocalBase, dtype: ServedBaseOnWire["dtype"]): number {
  const each = dtype === "float32" ? 4 : 2;
  let count = 0;
  for (const shape of shapes.values()) count += shape.reduce((product, one) => product * one, 1);
  return each * count;
}
