#!/usr/bin/env node
// pnpm bench [loop|engine|packing|histories|seeds|learn|judge|store|bodies] [options]: loop is what a training loop
// costs here, engine compares engines, packing compares a training step with shared tokens once and with a row
// for each sequence, histories is what more rollouts than rows cost, seeds repeats the quickstart over seeds, with
// controls and baselines, learn trains beside TRL, judge counts what RULER sends, store measures a data directory
// of a million rollouts, bodies what the largest requests cost all others.
import { join } from "node:path";
import process from "node:process";
import { installPackages, root, setUpModel, setUpPython, tsx } from "./install.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
const [first, ...rest] = process.argv.slice(2);
const named = first !== undefined && !first.startsWith("-");
const name = named ? first : "loop";
if (
  ![
    "loop",
    "engine",
    "packing",
    "histories",
    "seeds",
    "learn",
    "judge",
    "store",
    "bodies",
  ].includes(name)
) {
  console.error(
    `There is no benchmark "${name}". Use loop, engine, packing, histories, seeds, learn, judge, store or bodies.`,
  );
  process.exit(2);
}
await installPackages();
const options = named ? rest : process.argv.slice(2);
const file = join(root, "bench", `${name}.ts`);
const env = { ...process.env };
if (["engine", "learn"].includes(name) && !options.includes("--help")) {
  // What is compared with, PEFT and TRL, is in the environment of the tests alone.
  env.HONE_PYTHON ??= await setUpPython({ test: true });
  const bases = options[options.indexOf("--bases") + 1] ?? "";
  const small = name === "engine" && options.includes("--bases") && !bases.includes("smollm2");
  if (name === "engine" ? !small : options.some((option) => option.endsWith("inbox")))
    env.HONE_SMOLLM2 ??= await setUpModel("smollm2");
  env.HONE_VLLM_PYTHON ||= (await import("./vllm/environment.mjs")).findVllmPython() ?? "";
}
process.exit((await run(process.execPath, [...tsx, file, ...options], { cwd: root, env })).status);
