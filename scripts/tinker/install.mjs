// Makes the environment of Tinker's client as that of the worker is made: in the same cache, by one setup at a time,
// with the first Python that can. Started by setup.mjs.
import process from "node:process";
import { supportedPythons } from "../../packages/server/src/setup/python.ts";
import { makeEnvironment, pip } from "../../packages/server/src/setup/virtual-environment.ts";
import {
  environmentFolder,
  findTinkerPython,
  pythonOf,
  requirements,
} from "../../test/support/tinker-python.ts";

const options = { say: (line) => console.error(line) };
try {
  const python = findTinkerPython() ?? (await makeEnvironment(plans(), fill, options)).python;
  console.log(`Tinker's client is installed: ${python}`);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}

async function* plans() {
  const dir = environmentFolder();
  for await (const interpreter of supportedPythons()) {
    yield { name: "Tinker client's", dir, python: pythonOf(dir), interpreter, torch: "none" };
  }
}

async function fill(plan) {
  await pip(plan, ["--no-deps", "--requirement", requirements], options);
}
