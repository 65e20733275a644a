import { once } from "node:events";
import { join } from "node:path";
import { HoneError, printable } from "@hone/core";
import { defaultDataDir } from "@hone/transport/node";
import { Command, InvalidArgumentError, Option } from "commander";
import { pino } from "pino";
import { startSidecar, type RunningSidecar } from "../engines/sidecar/sidecar.ts";
import type { SidecarOptions } from "../engines/sidecar/sidecar-options.ts";
import { checkVllmFlags, givenFlag } from "../engines/vllm/flags.ts";
import { findVllm } from "../setup/vllm.ts";
import { atLeastOne, wholeNumber } from "./number-options.ts";
import { originURL } from "./origin-url.ts";

const mebibyte = 1024 * 1024;
interface EngineFlags {
  join: string;
  token?: string;
  name?: string;
  base?: string;
  engineUrl?: string;
  engineKey?: string;
  engineMaxSeqs?: number;
  device: "cpu" | "cuda";
  maxModelLen?: number;
  maxLoraRank?: number;
  maxLoras?: number;
  dataDir?: string;
  listen: { host: string; port: number };
  advertise?: string;
  cacheMib: number;
  drainSeconds: number;
  ephemeral?: boolean;
  logLevel: string;
}

export function engineCommand(): Command {
  return new Command("engine")
    .description("Runs vLLM for a server on another machine, and brings it the policies")
    .requiredOption("--join <url>", "the server", originURL)
    .addOption(
      new Option(
        "--token <token>",
        "of `hone engines token`, for the first start; later ones use the key that it brought",
      ).env("HONE_JOIN_TOKEN"),
    )
    .option("--name <name>", "what the server calls it (default: joined-1, joined-2, …)")
    .option("--base <folder|id>", "the server's base on this machine (default: its hub id)")
    .option("--engine-url <url>", "a vLLM that runs already and sees this disk", originURL)
    .addOption(new Option("--engine-key <key>", "the key of that vLLM").env("HONE_ENGINE_KEY"))
    .option(
      "--engine-max-seqs <number>",
      "its --max-num-seqs: how many requests the server sends it at first (default: 256)",
      atLeastOne,
    )
    .addOption(
      new Option("--device <device>", "where vLLM computes")
        .choices(["cpu", "cuda"])
        .default("cpu"),
    )
    .option("--max-model-len <tokens>", "longest sequence (default: the server's)", atLeastOne)
    .option("--max-lora-rank <rank>", "highest rank of a model (default: the server's)", atLeastOne)
    .option("--max-loras <number>", "policies that it samples from at a time", atLeastOne)
    .option("--data-dir <folder>", "key, adapters, logs (default: engine in HONE_HOME or ~/.hone)")
    .option("--listen <host:port>", "where the server's requests come in", listenAddress, {
      host: "127.0.0.1",
      port: 0,
    })
    .option(
      "--advertise <url>",
      "the URL at which the server reaches it (default: that of --listen)",
      originURL,
    )
    .option(
      "--cache-mib <MiB>",
      "what adapters that were in use may take on disk",
      atLeastOne,
      4096,
    )
    .option(
      "--drain-seconds <seconds>",
      "how long requests may go on once it stops",
      wholeNumber(0, 3_600),
      60,
    )
    .option("--ephemeral", "give the key back at the end: this machine does not come back")
    .addOption(
      new Option("--log-level <level>", "what is logged on standard error")
        .choices(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
        .default("warn"),
    )
    .argument("[flags...]", "behind --: flags for vLLM, besides those that Hone sets")
    .usage("--join <url> [options] [-- flags for vLLM]")
    .addHelpText(
      "after",
      `
The server has to run with \`--engine joined\`, \`--engine vllm\` or --engine-url. SIGTERM or Ctrl-C tells it to
send nothing new, waits for what runs, and ends; a second one does not wait.

Example:
  hone engines token                                       # where the server runs
  HONE_JOIN_TOKEN=… hone engine --join http://trainer:7777 --device cuda --listen 0.0.0.0:8000`,
    )
    .action(engine);
}

async function engine(vllmFlags: string[], flags: EngineFlags, command: Command): Promise<void> {
  const options = optionsOf(vllmFlags, flags, (name) => command.getOptionValueSource(name));
  const log = pino(
    { level: flags.logLevel, hooks: { streamWrite: printable } },
    pino.destination({ fd: 2, sync: true }),
  );
  const stop = new AbortController();
  const hurry = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => (stop.signal.aborted ? hurry : stop).abort());
  }
  console.error(`hone: joining ${options.server}`);
  let running: RunningSidecar;
  try {
    const tell = (line: string): void => console.error(`hone: ${line}`);
    running = await startSidecar({ ...options, tell, log, signal: stop.signal });
  } catch (error) {
    if (stop.signal.aborted) process.exit(130);
    throw error;
  }
  console.error(`hone: engine ${running.name} has joined; its traffic comes in at ${running.url}`);
  const failure = await Promise.race([
    running.failed.catch((error: unknown) => error),
    stop.signal.aborted ? null : once(stop.signal, "abort").then(() => null),
  ]);
  // Where it was removed, what runs may finish too, unless it is told to stop meanwhile.
  stop.abort();
  console.error("hone: waiting for the requests that run");
  await running.stop(hurry.signal);
  if (failure !== null) throw failure;
  // Everything has ended. A socket that is still open must not keep the process alive.
  process.exit(0);
}

function optionsOf(
  vllmFlags: string[],
  flags: EngineFlags,
  sourceOf: (option: keyof EngineFlags) => string | undefined,
): Omit<SidecarOptions, "tell" | "log" | "signal"> {
  const refuse = (param: string, message: string): never => {
    throw new HoneError(message, { code: "invalid_config", param });
  };
  if (flags.engineUrl !== undefined) {
    if (vllmFlags.length > 0) {
      refuse("vllmFlags", `${vllmFlags.join(" ")} would go to vLLM, which runs already.`);
    }
    if (flags.maxLoras !== undefined || flags.maxModelLen !== undefined) {
      refuse("engineURL", "--max-loras and --max-model-len are of the vLLM that Hone starts.");
    }
    if (sourceOf("device") === "cli") {
      refuse(
        "device",
        "--device is of the vLLM that Hone starts: one by --engine-url computes where it was started. Leave it out.",
      );
    }
  } else {
    if (flags.engineMaxSeqs !== undefined) {
      refuse("engineMaxSequences", "--engine-max-seqs is of --engine-url. Give -- --max-num-seqs.");
    }
    // One of the environment may be there for another engine.
    if (sourceOf("engineKey") === "cli") {
      refuse(
        "engineKey",
        "--engine-key is of a vLLM by --engine-url: Hone makes a key for the one that it starts. Add --engine-url, or leave it out.",
      );
    }
    // Behind `--` they would win, and the sidecar would not know.
    if (flags.maxLoras !== undefined && givenFlag(vllmFlags, "--max-loras") !== undefined) {
      refuse("maxLoras", "--max-loras and -- --max-loras both decide it. Leave one out.");
    }
    if (givenFlag(vllmFlags, "--max-lora-rank") !== undefined) {
      refuse(
        "maxLoraRank",
        "Behind -- the server does not hear of --max-lora-rank. Give it before --.",
      );
    }
  }
  checkVllmFlags(vllmFlags);
  const { device, maxLoras, engineUrl, engineKey, engineMaxSeqs } = flags;
  return {
    server: flags.join,
    token: flags.token || undefined,
    name: flags.name,
    base: flags.base,
    engine:
      engineUrl === undefined
        ? { python: findVllm(device), device, maxLoras, flags: vllmFlags }
        : { url: engineUrl, key: engineKey ?? null, maxSequences: engineMaxSeqs },
    maxModelLen: flags.maxModelLen,
    maxLoraRank: flags.maxLoraRank,
    dataDir: flags.dataDir ?? join(defaultDataDir(), "engine"),
    listen: flags.listen,
    advertise: flags.advertise,
    cacheBytes: flags.cacheMib * mebibyte,
    drainMs: flags.drainSeconds * 1000,
    ephemeral: flags.ephemeral ?? false,
  };
}

function listenAddress(text: string): { host: string; port: number } {
  const found = /^(?:\[([0-9a-fA-F:]+)\]|([^:\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(found?.[3]);
  if (!found || port > 65_535) {
    throw new InvalidArgumentError("It must be a host and a port, such as 0.0.0.0:8000.");
  }
  return { host: found[1] ?? found[2] ?? "", port };
}
