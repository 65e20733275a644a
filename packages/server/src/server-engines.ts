import { HoneError } from "@hone/core";
import type { ComposeOptions } from "./compose.ts";
import { isEmbedded, type EngineOptions } from "./engine-options.ts";
import { checkVllmFlags, givenFlag } from "./engines/vllm/flags.ts";
import { findVllm } from "./setup/vllm.ts";

/** Which engines are wanted, or why these options do not go together. */
export function checkEngines(
  options: EngineOptions & {
    engineKey?: string | undefined;
    publishDeadlineMs?: number | undefined;
  },
): Pick<ComposeOptions, "engineURLs" | "vllm" | "dtype" | "joinedOnly" | "engineApart"> {
  const { engine = "embedded", engineURL = [], replicas, vllmFlags = [] } = options;
  const engineURLs = [engineURL].flat();
  const own = isEmbedded(options);
  const refuse = (param: string, message: string): never => {
    throw new HoneError(message, { code: "invalid_config", param });
  };
  if (engineURLs.length > 0 && options.engine !== undefined) {
    refuse("engine", "An engine by its URL and --engine exclude each other. Leave one out.");
  }
  if (new Set(engineURLs).size < engineURLs.length) {
    refuse("engineURL", "Two engines have the same URL. Give each one once.");
  }
  if (engineURLs.length === 0 && options.engineKey !== undefined) {
    refuse("engineKey", "--engine-key is of engines by --engine-url. Add one, or leave it out.");
  }
  if (engineURLs.length === 0 && options.engineMaxSequences !== undefined) {
    refuse(
      "engineMaxSequences",
      "--engine-max-seqs is of --engine-url: a vLLM of this server takes -- --max-num-seqs, and one that joins says it itself. Leave it out.",
    );
  }
  if (options.maxStaleness !== undefined && (engine === "embedded" || engineURLs.length > 0)) {
    refuse(
      "maxStaleness",
      "--max-staleness decides from how many policies vLLM samples at a time. The embedded engine takes any number, and a vLLM by its URL has its own --max-loras. Leave it out; runs have `maxStaleness`.",
    );
  }
  if (options.maxStaleness !== undefined && givenFlag(vllmFlags, "--max-loras") !== undefined) {
    refuse("maxStaleness", "--max-staleness and -- --max-loras both decide it. Leave one out.");
  }
  if (options.quantize && !own) {
    refuse(
      "quantize",
      "A base in 4 bits is for the embedded engine: what vLLM serves has other weights, so its samples would not be those of the policy that is trained. Leave out --quantize or vLLM.",
    );
  }
  for (const param of ["kvCacheMib", "engineShare"] as const) {
    if (options[param] === undefined || own) continue;
    refuse(
      param,
      `${param} is of the embedded engine. Give vLLM its own flag, such as --gpu-memory-utilization.`,
    );
  }
  if (options.publishDeadlineMs !== undefined && own) {
    refuse(
      "publishDeadlineMs",
      "--publish-deadline is for several engines, of which the others go on without a late one: the embedded engine is always waited for. Leave it out.",
    );
  }
  const engineApart = options.engineProcess === "own";
  if (options.engineProcess !== undefined && !own) {
    refuse(
      "engineProcess",
      "--engine-process is of the embedded engine: others have a process of their own. Leave it out.",
    );
  }
  if (engineApart && options.device === "cuda") {
    refuse(
      "engineProcess",
      "--engine-process own is for --device cpu: on a card the engine and the trainer share the base's weights. Leave it out, or generate with --engine vllm.",
    );
  }
  if (/(^|,)\s*decode\s*=/.test(options.paths ?? "") && !own) {
    refuse(
      "paths",
      "--paths decode=… is of the embedded engine: others decode in their own way. Leave decode out.",
    );
  }
  if (options.kvCacheMib !== undefined && options.engineShare !== undefined) {
    refuse(
      "engineShare",
      "kvCacheMib and engineShare both say how much the embedded engine may keep. Leave one out.",
    );
  }
  if (options.sleep) {
    const fault = whyNoSleep(options);
    if (fault !== null) refuse("sleep", fault);
  }
  if (engine !== "vllm") {
    if (replicas !== undefined)
      refuse("replicas", "--replicas is of --engine vllm. Add that, or leave it out.");
    if (vllmFlags.length > 0) {
      refuse(
        "vllmFlags",
        `${vllmFlags.join(" ")} would go to vLLM. Add --engine vllm, or leave it out.`,
      );
    }
    return { engineURLs, engineApart, joinedOnly: engine === "joined" };
  }
  checkVllmFlags(vllmFlags);
  const python = findVllm(options.device ?? "cpu");
  const dtype = options.dtype ?? (options.device === "cuda" ? "bfloat16" : "float32");
  const sleep = options.sleep ?? false;
  const vllm = { python, replicas: replicas ?? 1, flags: vllmFlags, dtype, sleep };
  return { engineURLs, dtype, vllm };
}

/** Why an engine cannot sleep while a step trains; null where it can. */
function whyNoSleep({
  engine = "embedded",
  engineURL = [],
  device = "cpu",
  replicas = 1,
}: EngineOptions): string | null {
  if ([engineURL].flat().length > 0) {
    return "--sleep is of a vLLM that this server runs: one by its URL may have others' requests. Leave it out, or use --engine vllm.";
  }
  if (engine === "joined") {
    return "--sleep is of a vLLM on the trainer's card: engines that join have cards of their own. Leave it out.";
  }
  if (engine === "embedded") {
    return "--sleep is of --engine vllm: the embedded engine uses the trainer's own copy of the base. Leave it out.";
  }
  if (device === "cpu") {
    return "--sleep is for --device cuda: without a GPU vLLM gives no memory away. Leave it out.";
  }
  if (replicas > 1) {
    return "--sleep is of one vLLM that shares the trainer's card: --replicas have cards of their own, and go on while a step trains. Leave one of the two out.";
  }
  return null;
}
