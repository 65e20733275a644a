import { once } from "node:events";
import { existsSync } from "node:fs";
import { HoneError, type Keep, printable } from "@hone/core";
import { Command, Option } from "commander";
import { pino } from "pino";
import { defaultAdapterMemory } from "../policies/live.ts";
import { defaultKeep } from "../retention/retention.ts";
import { parseRewardModel } from "../scoring/reward-models.ts";
import { findEnvironment } from "../setup/environment.ts";
import { findModel, modelNames } from "../setup/models.ts";
import { startServer, type RunningServer, type ServerOptions } from "../server.ts";
import type { ServedBase } from "../served-base.ts";
import type { WorkerMemory } from "../trainer/worker-memory.ts";
import { keepOf } from "./keep.ts";
import { atLeastOne, notNegative, share, wholeNumber } from "./number-options.ts";
import { originURL } from "./origin-url.ts";
import { tellWhileStarting } from "./starting.ts";

const mebibyte = 1024 * 1024;

interface ServeFlags {
  base: string;
  servedName?: string;
  port: number;
  host: string;
  dataDir?: string;
  device: "cpu" | "cuda";
  dtype?: "float32" | "bfloat16";
  quantize?: "nf4";
  maxModelLen?: number;
  kvCacheMib?: number;
  engineShare?: number;
  recompute: "auto" | "on" | "off";
  paths?: string;
  engine?: "embedded" | "vllm" | "joined";
  engineProcess?: "trainer" | "own";
  replicas?: number;
  sleep?: boolean;
  maxStaleness?: number;
  engineUrl?: string[];
  engineKey?: string;
  engineMaxSeqs?: number;
  renderer?: string;
  rewardModel?: Record<string, string>;
  objectives?: string[];
  allowHost?: string[];
  allowOrigin?: string[];
  trainingDeadline?: number;
  keep: Keep;
  adapterMemory: number;
  publishDeadline?: number;
  probeTolerance?: number;
  bucket?: string;
  bucketEndpoint?: string;
  stopAtEof?: boolean;
  logLevel: string;
}

export function serveCommand(): Command {
  return new Command("serve")
    .description("Serves one base model and the policies trained from it")
    .requiredOption(
      "--base <folder|id>",
      "folder of the base model, its id on the hub, or a name of `setup --model`",
    )
    .option("--served-name <name>", "name of the bare base (default: its id or folder's name)")
    .option("--port <number>", "0 for any free one", wholeNumber(0, 65_535), 7777)
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("--data-dir <folder>", "key, database, checkpoints (default: HONE_HOME or ~/.hone)")
    .addOption(
      new Option("--device <device>", "where the model computes")
        .choices(["cpu", "cuda"])
        .default("cpu"),
    )
    .addOption(
      new Option(
        "--dtype <type>",
        "default: bfloat16 on cuda, and on a cpu with AVX512-BF16 from 100M parameters on; else float32",
      ).choices(["float32", "bfloat16"]),
    )
    .addOption(
      new Option(
        "--quantize <type>",
        "hold the base's linear layers in 4 bits, a quarter of bfloat16's memory (needs `setup --bitsandbytes`)",
      )
        .choices(["nf4"])
        .conflicts("engineUrl"),
    )
    .option("--max-model-len <tokens>", "longest sequence (default: the base's)", atLeastOne)
    .addOption(
      new Option(
        "--kv-cache-mib <MiB>",
        "memory for keys and values of running and earlier turns (default: a quarter of the machine's)",
      )
        .argParser(atLeastOne)
        .conflicts("engineUrl"),
    )
    .addOption(
      new Option(
        "--engine-share <number>",
        "the same as a share of the memory that the base leaves free, from 0.05 to 0.95 (default on cuda: 0.5)",
      )
        .argParser(share)
        .conflicts("engineUrl"),
    )
    .addOption(
      new Option(
        "--recompute <when>",
        "compute a layer's activations again in its backward, which takes a third more time and less memory; auto: where a micro-batch would not fit otherwise",
      )
        .choices(["auto", "on", "off"])
        .default("auto"),
    )
    .option(
      "--paths <name=way,…>",
      "by which ways parts of the work are computed: attention, lora, layer, loss_chunk, optimizer, products, decode (default: the device decides)",
    )
    .option("--renderer <name>", "how messages become tokens", "auto")
    .option(
      "--reward-model <name=folder|id>",
      "a sequence classifier for POST /v1/score; may be given several times",
      collectRewardModel,
    )
    .option(
      "--objectives <file>",
      "a Python file with an objective of your own, run as it stands; may be given several times",
      collect,
    )
    .addOption(
      new Option(
        "--engine <engine>",
        "what generates: the embedded engine, vLLM, which this server then runs, or engines that join with `hone engine` (default: embedded)",
      ).choices(["embedded", "vllm", "joined"]),
    )
    .addOption(
      new Option(
        "--engine-process <whose>",
        "where the embedded engine computes: in the trainer's process, in turn with it, or in its own, which generates while a step trains and takes the base's memory twice (cpu, two cores or more; default: trainer)",
      ).choices(["trainer", "own"]),
    )
    .option(
      "--replicas <number>",
      "how many vLLMs, each on a card of its own (default: 1)",
      wholeNumber(1, 64),
    )
    .option(
      "--sleep",
      "one vLLM and the trainer on one card: vLLM sleeps while a step trains and no rollout is under way, and leaves the trainer its memory; what is asked for meanwhile waits",
    )
    .option(
      "--max-staleness <policies>",
      "how old the rollouts may be that runs train on: vLLM samples from so many policies at a time, and two more (default: 4)",
      wholeNumber(0, 100),
    )
    .option(
      "--engine-url <url>",
      "a vLLM server that others run and that sees the same disk; may be given several times",
      collectEngineURL,
    )
    .addOption(new Option("--engine-key <key>", "the key of engines by URL").env("HONE_ENGINE_KEY"))
    .option(
      "--engine-max-seqs <number>",
      "the --max-num-seqs of engines by URL: how many requests each gets at first (default: 256)",
      atLeastOne,
    )
    .option(
      "--allow-host <name>",
      "another host name of this server; may be given several times",
      collect,
    )
    .option(
      "--allow-origin <origin>",
      "an Origin header to accept, such as of a proxy in front; may be given several times",
      collect,
    )
    .option(
      "--training-deadline <seconds>",
      "longest time without progress in training",
      atLeastOne,
    )
    .option(
      "--keep <number|all>",
      "newest policies of each model that stay on disk",
      keepOf,
      defaultKeep,
    )
    .option(
      "--adapter-memory <MiB>",
      "what policies in the engine may take; past it the least recently used are unloaded until they are asked for",
      atLeastOne,
      defaultAdapterMemory / mebibyte,
    )
    .option(
      "--publish-deadline <seconds>",
      "an engine that is not ready for a new policy by then gets no requests until it is, if another is ready (default: 10)",
      atLeastOne,
    )
    .option(
      "--probe-tolerance <number>",
      "what an engine's logprobs may differ by from the trainer's at a publish (default: 0.001 in float32, 0.2 in bfloat16)",
      notNegative,
    )
    .option(
      "--bucket <s3://name/prefix>",
      "where engines that join get adapters from, by URLs that this server signs; its rights are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION of the environment",
    )
    .option(
      "--bucket-endpoint <url>",
      "a store that is not Amazon's (default: AWS_ENDPOINT_URL_S3 of the environment)",
    )
    .option("--stop-at-eof", "stop when standard input ends, as a child of another program")
    .addOption(
      new Option("--log-level <level>", "what is logged on standard error")
        .choices(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
        .default("warn"),
    )
    .argument("[flags...]", "behind --: flags for vLLM, besides those that Hone sets")
    .usage("--base <folder|id> [options] [-- flags for vLLM]")
    .action(serve);
}

async function serve(vllmFlags: string[], flags: ServeFlags, command: Command): Promise<void> {
  // One of the environment may be there for another server.
  if (flags.engineUrl === undefined && command.getOptionValueSource("engineKey") === "cli") {
    throw new HoneError("--engine-key is of engines by --engine-url. Add one, or leave it out.", {
      code: "invalid_config",
      param: "engineKey",
    });
  }
  const log = pino(
    // JSON escapes controls; marks of direction and the like would reach the terminal.
    { level: flags.logLevel, hooks: { streamWrite: printable } },
    pino.destination({ fd: 2, sync: true }),
  );
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      // What is asked for twice is not waited for: what a crash leaves, the next start puts right.
      if (stop.signal.aborted) process.exit(130);
      stop.abort();
    });
  }
  if (flags.stopAtEof) process.stdin.once("close", () => stop.abort()).resume();
  let server: RunningServer;
  const tells = log.isLevelEnabled("warn") && !log.isLevelEnabled("info");
  const started = tells ? tellWhileStarting(console.error) : () => undefined;
  try {
    const options = optionsOf(await withBase(flags));
    const onNotice = (line: string): void => console.error(`hone: ${line}`);
    server = await startServer({ ...options, vllmFlags, log, onNotice, signal: stop.signal });
  } catch (error) {
    if (stop.signal.aborted) process.exit(130);
    throw error;
  } finally {
    started();
  }
  announce(server);
  if (!stop.signal.aborted) await once(stop.signal, "abort");
  await server.close();
  // Everything has ended. A socket that is still open must not keep the process alive.
  process.exit(0);
}

/** A name of `setup --model` stands for the folder that setup made; the base keeps the name. */
async function withBase(flags: ServeFlags): Promise<ServeFlags> {
  const name = flags.base;
  if (!modelNames.includes(name) || existsSync(name)) return flags;
  const found = await findModel(name, await findEnvironment());
  if (found) return { ...flags, base: found.folder, servedName: flags.servedName ?? name };
  throw new HoneError(
    `The model "${name}" is not here yet. Run \`npx @hone/server setup --model ${name}\` once (in a clone: \`npm run hone -- setup --model ${name}\`).`,
    { code: "invalid_config", param: "base" },
  );
}

/** Prints two lines to export. What was taken for the base goes to standard error, which no shell evaluates. */
function announce(server: RunningServer): void {
  console.error(describeBase(server.base));
  console.log(`export HONE_URL=${server.publicURL}`);
  console.log(`export HONE_API_KEY=${server.key}`);
}

export function describeBase({
  name,
  dtype,
  quantize,
  device,
  renderer,
  memory,
}: ServedBase): string {
  const turns = renderer.bridges
    ? "turns extend the one before token for token"
    : "turns are rendered anew (one that does not repeat the sampled tokens begins a new sequence)";
  const tools = {
    template: "tools by its template",
    convention: "tools by Hone's convention, for its template has none that can be read back",
    none: "no tools: requests that have some are refused",
  }[renderer.tools];
  const texts = renderer.plainTexts ? "" : "; control tokens that a text spells are real ones";
  return `hone: base ${name}, ${dtype} on ${device}${quantize ? `, in 4 bits (${quantize})` : ""}; renderer ${renderer.name}: ${turns}; ${tools}${texts}${memory ? `; memory: ${describeMemory(memory)}` : ""}`;
}

function describeMemory({ base, kv_cache: keysAndValues, trainer }: WorkerMemory): string {
  const shown = (bytes: number): string =>
    bytes >= 1024 * mebibyte
      ? `${(bytes / (1024 * mebibyte)).toFixed(1)} GiB`
      : `${Math.round(bytes / mebibyte)} MiB`;
  const engine = keysAndValues > 0 ? `, keys and values ${shown(keysAndValues)}` : "";
  return `base ${shown(base)}${engine}, a micro-batch ${shown(trainer)}`;
}

function optionsOf(flags: ServeFlags): ServerOptions {
  return {
    base: flags.base,
    servedName: flags.servedName,
    port: flags.port,
    host: flags.host,
    dataDir: flags.dataDir,
    device: flags.device,
    dtype: flags.dtype,
    quantize: flags.quantize,
    maxModelLen: flags.maxModelLen,
    kvCacheMib: flags.kvCacheMib,
    engineShare: flags.engineShare,
    recompute: flags.recompute,
    paths: flags.paths,
    engine: flags.engine,
    engineProcess: flags.engineProcess,
    replicas: flags.replicas,
    sleep: flags.sleep,
    maxStaleness: flags.maxStaleness,
    engineURL: flags.engineUrl,
    engineKey: flags.engineUrl && flags.engineKey,
    engineMaxSequences: flags.engineMaxSeqs,
    renderer: flags.renderer,
    rewardModels: flags.rewardModel,
    objectives: flags.objectives,
    hosts: flags.allowHost,
    origins: flags.allowOrigin,
    keep: flags.keep,
    adapterMemory: flags.adapterMemory * mebibyte,
    publishDeadlineMs: flags.publishDeadline && flags.publishDeadline * 1000,
    probeTolerance: flags.probeTolerance,
    bucket: flags.bucket,
    bucketEndpoint: flags.bucketEndpoint,
    deadlines: {
      trainingMs: flags.trainingDeadline === undefined ? undefined : flags.trainingDeadline * 1000,
    } as ServerOptions["deadlines"],
  };
}

/** Without a slash at its end and without `/v1`. */
function collectEngineURL(text: string, previous: string[] = []): string[] {
  return [...previous, originURL(text)];
}

function collectRewardModel(
  text: string,
  previous: Record<string, string> = {},
): Record<string, string> {
  const { name, source } = parseRewardModel(text);
  if (!Object.hasOwn(previous, name)) return { ...previous, [name]: source };
  throw new HoneError(`Two reward models are called "${name}". Give one another name.`, {
    code: "invalid_config",
    param: "rewardModels",
  });
}

function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value];
}
