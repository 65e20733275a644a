import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeSize, install, queryDownload, requireDownload } from "./downloads.ts";
import {
  findEnvironment,
  planEnvironment,
  requirementsOf,
  workerPlans,
  type EnvironmentName,
  type EnvironmentPlan,
} from "./environment.ts";
import { checkSpace, findTorch } from "./install-torch.ts";
import { pinsIn } from "./requirement-pins.ts";
import { chooseTorch, rememberTorch, torchVersion } from "./torch.ts";
import { essentialModules, verifyEnvironment, type EnvironmentReport } from "./verify.ts";
import { makeEnvironment, pip, runInside, type SetupOptions } from "./virtual-environment.ts";

export interface SetUpOptions extends SetupOptions {
  /** `auto`, `cpu`, `cuda` or an index. @default what was asked for last time, else what the machine runs */
  torch?: string | undefined;
}

/** Makes the Python environment if it is missing or broken. Resolves to its interpreter. */
export async function setUp(name: EnvironmentName, options: SetUpOptions): Promise<string> {
  const named = process.env["HONE_PYTHON"];
  if (named) {
    options.say(`Python: HONE_PYTHON (${named}), used as it is.`);
    return named;
  }
  const torch = await chooseTorch(options.torch);
  const fillWorker = async (plan: EnvironmentPlan): Promise<void> => {
    options.say(`Chosen: ${describeBuild(torch.build)} of torch (${torch.why}).`);
    await installWorker(plan, options);
  };
  const verifyWorker = async ({ python }: EnvironmentPlan): Promise<string[]> =>
    (await verifyEnvironment(python, options)).problems;
  const worker = await makeEnvironment(workerPlans(torch.build), fillWorker, {
    ...options,
    verify: verifyWorker,
  });
  rememberTorch(torch);
  if (name === "worker") return worker.python;
  const fillTest = async (plan: EnvironmentPlan): Promise<void> => {
    seePackagesOf(worker, plan);
    // Python 3.11 brings an old one, which would hide the other environment's.
    await runInside(plan, ["-m", "pip", "uninstall", "-q", "-y", "setuptools"], options);
    options.say("Downloading and installing requirements/test.txt …");
    await pip(plan, pinnedBy("test"), options);
  };
  // It must be the worker's Python: packages of one version do not load in another.
  const plan = planEnvironment("test", worker.interpreter, torch.build);
  return (await makeEnvironment([plan], fillTest, options)).python;
}

export interface SetupCheck extends EnvironmentReport {
  python: string;
}

/** What `setup --check` tells. Rejects if there is no environment to look at. */
export async function checkSetup(signal?: AbortSignal): Promise<SetupCheck> {
  const python = await findEnvironment();
  const requirements = process.env["HONE_PYTHON"] ? [] : undefined;
  const modules = essentialModules;
  return { python, ...(await verifyEnvironment(python, { requirements, modules, signal })) };
}

async function installWorker(plan: EnvironmentPlan, options: SetupOptions): Promise<void> {
  options.show?.("asking the package index how much there is to download");
  const [packages, torch] = await Promise.all([
    // Without the hashes, for which pip would fetch the files themselves.
    queryDownload(plan, ["--no-deps", ...pinsIn(requirementsOf("worker"))], options),
    findTorch(plan, options, requirementsOf("worker")),
  ]);
  options.show?.(null);
  const download = requireDownload(packages, plan);
  const { size } = download;
  options.say(`torch ${torchVersion}, ${torch.what}: ${describeSize([torch.size])}.`);
  options.say(`Everything else: ${describeSize([size])}. Downloading and installing …`);
  checkSpace(plan, [download, torch]);
  await install(plan, { args: pinnedBy("worker"), size }, "requirements/worker.txt", options);
  await install(plan, torch, "torch", options);
}

/** Names the other environment's packages in this one's path file. */
function seePackagesOf(other: EnvironmentPlan, plan: EnvironmentPlan): void {
  const site = ({ dir, interpreter }: EnvironmentPlan): string => {
    const [major, minor] = interpreter.version.split(".");
    return join(dir, "lib", `python${major}.${minor}`, "site-packages");
  };
  writeFileSync(join(site(plan), "hone-worker-environment.pth"), `${site(other)}\n`);
}

function describeBuild(build: string): string {
  if (build === "cpu") return "the CPU build";
  return build === "cuda" ? "the CUDA build" : `the build in ${build}`;
}

function pinnedBy(name: EnvironmentName): string[] {
  return ["--no-deps", "--require-hashes", "-r", requirementsOf(name)];
}
