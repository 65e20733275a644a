// Makes vLLM's environment as that of the worker is made: in the same cache, by one setup at a time, with
// the first Python that can. Started by setup.mjs.
import process from "node:process";
import { supportedPythons } from "../../packages/server/src/setup/python.ts";
import { installTorch } from "../../packages/server/src/setup/install-torch.ts";
import { makeEnvironment, pip } from "../../packages/server/src/setup/virtual-environment.ts";
import { environmentFolder, findVllmPython, pythonOf, requirementFiles } from "./environment.mjs";

const options = { say: (line) => console.error(line) };
const chosen = process.env.HONE_VLLM_PYTHON;
if (chosen && !findVllmPython()) {
  fail(`HONE_VLLM_PYTHON is ${chosen}, which does not exist. Correct or unset it.`);
}
try {
  const python = findVllmPython() ?? (await makeEnvironment(plans(), fill, options)).python;
  console.log(`vLLM is installed: ${python}`);
} catch (error) {
  fail(error.message);
}

/** One folder, whichever Python it is made with: whoever starts vLLM need not look for that Python. */
async function* plans() {
  const dir = environmentFolder();
  for await (const interpreter of supportedPythons()) {
    const torch = process.env.HONE_TORCH_INDEX || "cpu";
    yield { name: "vLLM", dir, python: pythonOf(dir), interpreter, torch };
  }
}

async function fill(plan) {
  const [engine, rest] = requirementFiles;
  await installTorch(plan, options);
  options.say("Downloading and installing vLLM …");
  await pip(plan, ["--no-deps", "--require-hashes", "--requirement", engine], options);
  await pip(plan, ["--no-deps", "--requirement", rest], options);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
