import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  planEnvironment,
  requirementsOf,
  workerPlans,
  type EnvironmentName,
  type EnvironmentPlan,
} from "./environment.ts";
import {
  installTorch,
  makeEnvironment,
  pip,
  runInside,
  type SetupOptions,
} from "./virtual-environment.ts";

/** Makes the Python environment if it is not there. Resolves to its interpreter. */
export async function setUp(name: EnvironmentName, options: SetupOptions): Promise<string> {
  const named = process.env["HONE_PYTHON"];
  if (named) {
    options.say(`Python: HONE_PYTHON (${named}), used as it is.`);
    return named;
  }
  const fillWorker = async (plan: EnvironmentPlan): Promise<void> => {
    await install("worker", plan, options);
    await installTorch(plan, options);
  };
  const worker = await makeEnvironment(workerPlans(), fillWorker, options);
  if (name === "worker") return worker.python;
  const fillTest = async (plan: EnvironmentPlan): Promise<void> => {
    seePackagesOf(worker, plan);
    // Python 3.11 brings an old one, which would hide the other environment's.
    await runInside(plan, ["-m", "pip", "uninstall", "-q", "-y", "setuptools"], options);
    await install("test", plan, options);
  };
  // It must be the worker's Python: packages of one version do not load in another.
  const plan = planEnvironment("test", worker.interpreter);
  return (await makeEnvironment([plan], fillTest, options)).python;
}

async function install(
  name: EnvironmentName,
  plan: EnvironmentPlan,
  options: SetupOptions,
): Promise<void> {
  options.say(`Downloading and installing requirements/${name}.txt …`);
  await pip(plan, ["--no-deps", "--require-hashes", "-r", requirementsOf(name)], options);
}

/** Names the other environment's packages in this one's path file. */
function seePackagesOf(other: EnvironmentPlan, plan: EnvironmentPlan): void {
  const site = ({ dir, interpreter }: EnvironmentPlan): string => {
    const [major, minor] = interpreter.version.split(".");
    return join(dir, "lib", `python${major}.${minor}`, "site-packages");
  };
  writeFileSync(join(site(plan), "hone-worker-environment.pth"), `${site(other)}\n`);
}
