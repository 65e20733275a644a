import { basename } from "node:path";
import type { OptionInForce } from "@hone/core";
import { defaultAdapterMemory } from "../policies/live.ts";
import { defaultKeep } from "../retention/retention.ts";
import { isEmbedded } from "../engine-options.ts";
import type { Facts } from "./facts.ts";

const mebibyte = 1024 ** 2;
/** Behind these a flag's value may be something that is not for everybody. */
const secret = /token|key|secret|password|header|path|dir|file|template|config/i;

/** Each option of `serve` that bears on what it does, as it is in force. */
export function optionsInForce(facts: Facts): OptionInForce[] {
  const { given, base, memory, bucket } = facts;
  const all: OptionInForce[] = [];
  /** @param usual what is in force where nothing is given */
  const add = (
    option: string,
    wanted: string | number | null | undefined,
    usual: string | number | null,
    inForce: string | number | null | undefined = usual,
  ): void => {
    const isGiven = wanted !== undefined && wanted !== null && String(wanted) !== String(usual);
    const value = inForce === null ? null : String(inForce);
    all.push({ option, value, given: isGiven });
  };
  const list = (some: readonly string[] | undefined): string | null =>
    some && some.length > 0 ? some.join(", ") : null;
  const urls = [given.engineURL ?? []].flat();
  const embedded = isEmbedded(given);

  const trainingMs = given.deadlines?.trainingMs;
  const usualMemory = defaultAdapterMemory / mebibyte;
  const usualTolerance = toleranceOf(base.dtype);
  const inSeconds = (ms: number | undefined): number | undefined => ms && ms / 1000;
  const inMebibytes = (bytes: number | undefined): number | undefined => bytes && bytes / mebibyte;
  const cache = embedded && memory ? Math.round(memory.kv_cache / mebibyte) : null;
  const flags = shownFlags(given.vllmFlags ?? []).join(" ") || null;
  const deadline = inSeconds(given.publishDeadlineMs);
  const adapterMemory = inMebibytes(given.adapterMemory);

  add("--base", base.name, null, base.name);
  add("--served-name", given.servedName, null, base.name);
  add("--host", given.host, "127.0.0.1", given.host);
  add("--port", given.port, 7777, facts.port);
  add("--device", given.device, "cpu", given.device);
  add("--dtype", given.dtype, null, base.dtype);
  add("--quantize", given.quantize, null, given.quantize);
  add("--max-model-len", given.maxModelLen, null, base.maxModelLen);
  add("--kv-cache-mib", given.kvCacheMib, null, cache);
  add("--engine-share", given.engineShare, null, given.engineShare);
  add("--recompute", given.recompute, "auto", given.recompute);
  add("--paths", given.paths, null, given.paths);
  add("--renderer", given.renderer, "auto", base.renderer);
  const rewardModels = list(Object.keys(given.rewardModels ?? {}));
  add("--reward-model", rewardModels, null, rewardModels);
  const objectives = list(given.objectives?.map((one) => basename(one)));
  add("--objectives", objectives, null, objectives);
  add("--engine", given.engine, urls.length > 0 ? null : "embedded", given.engine);
  add("--engine-process", given.engineProcess, embedded ? "trainer" : null, given.engineProcess);
  add("--replicas", given.replicas, given.engine === "vllm" ? 1 : null, given.replicas);
  const sleep = given.sleep ? "on" : null;
  add("--sleep", sleep, null, sleep);
  const staleness = given.engine === "vllm" || given.engine === "joined" ? 4 : null;
  add("--max-staleness", given.maxStaleness, staleness, given.maxStaleness);
  const origins = list(urls.map((url) => new URL(url).origin));
  add("--engine-url", origins, null, origins);
  const sequences = urls.length > 0 ? 256 : null;
  add("--engine-max-seqs", given.engineMaxSequences, sequences, given.engineMaxSequences);
  add("--allow-host", list(given.hosts), null, list(given.hosts));
  add("--allow-origin", list(given.origins), null, list(given.origins));
  add("--training-deadline", inSeconds(trainingMs), 300, inSeconds(trainingMs));
  add("--keep", given.keep, defaultKeep, given.keep);
  add("--adapter-memory", adapterMemory, usualMemory, adapterMemory);
  add("--publish-deadline", deadline, embedded ? null : 10, deadline);
  add("--probe-tolerance", given.probeTolerance, usualTolerance, given.probeTolerance);
  add("--bucket", bucket?.place, null, bucket?.place);
  add("--bucket-endpoint", bucket?.origin, null, bucket?.origin);
  add("--", flags, null, flags);
  return all;
}

/** What logprobs may differ by where nothing was said. */
export function toleranceOf(dtype: "float32" | "bfloat16"): number {
  return dtype === "float32" ? 0.001 : 0.2;
}

/** Flags with their values, but for values that are paths, or may be secrets. */
function shownFlags(flags: readonly string[]): string[] {
  return flags.map((flag, at) => {
    const [name = "", ...value] = flag.split("=");
    if (flag.startsWith("-")) {
      return value.length > 0 && hides(name, value.join("=")) ? `${name}=…` : flag;
    }
    return hides(flags[at - 1] ?? "", flag) ? "…" : flag;
  });
}

function hides(name: string, value: string): boolean {
  return secret.test(name) || value.includes("/") || value.startsWith("{");
}
