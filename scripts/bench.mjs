#!/usr/bin/env node
// `pnpm bench [NAME] [options]` measures what something costs: loop (a training loop here), engine (engines beside
// each other), trainer (training steps beside TRL's and plain PEFT's), packing (a training step with shared tokens once, and with a row for each sequence), histories (more
// rollouts than rows), lengths (rows of very different lengths decoded together), judge (what RULER sends), close-groups (close attempts ordered by passes and by a tournament), judge-doctor (what the doctor finds of scripted judges), store (a
// data directory of a million rollouts), bodies (what the largest requests cost all others), router (rollouts over several
// engines: whether turns find their prefix, how even the load is), joined-engines (publications on vLLMs with sidecars).
// `pnpm experiment NAME [options]` trains or judges and shows how well: seeds repeats the quickstart over seeds, with
// controls and baselines, styles shows which way of playing a run of 2048 has learnt, learn trains beside TRL,
// own-judge lets a small local model be the judge, strangers has the inbox agent read mails in words that nobody
// trained or tuned it with, sft-rl compares demonstrations, rewards and both, rates compares learning rates, draws ways
// to draw scenarios where half of them teach nothing, overlap plays the next batch while a step trains, email trains the
// email agent by gold labels, by RULER and by shuffled rewards, email-agents answers through every framework with one
// policy, mcp trains agents of MCP servers, alarms rigs rewards and looks whether they are caught,
// good-teacher trains reward models and policies by them, and shows which of them taught, train-judge trains judges by each method,
// self-judge trains a policy by its own judgements, beside gold for all and for a fifth, ruler-judge has RULER ask judges
// that were trained in another form.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { installPackages, root, setUpModel, setUpPython, tsx } from "./install.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
const known = {
  bench: [
    "loop",
    "engine",
    "trainer",
    "packing",
    "histories",
    "lengths",
    "judge",
    "close-groups",
    "judge-doctor",
    "store",
    "bodies",
    "router",
    "joined-engines",
  ],
  experiments: [
    ...["seeds", "styles", "learn", "own-judge", "strangers", "sft-rl", "rates", "draws", "email"],
    ...["train-judge", "self-judge", "ruler-judge"],
    ...["overlap", "email-agents", "mcp", "alarms", "good-teacher"],
  ],
};
const [folder, first, ...rest] = process.argv.slice(2);
const names = known[/** @type {keyof typeof known} */ (folder)];
const named = first !== undefined && !first.startsWith("-");
const options = named ? rest : process.argv.slice(3);
const help = options.includes("--help") || options.includes("-h");
if (help && !named) {
  console.log(headComment(readFileSync(join(root, "scripts/bench.mjs"), "utf8")));
  process.exit(0);
}
const name = named ? first : folder === "bench" ? "loop" : "";
if (!names.includes(name)) {
  console.error(`There is no "${name}" in ${folder}/. Use one of: ${names.join(", ")}.`);
  process.exit(2);
}
const file = join(root, folder, `${name}.ts`);
const source = readFileSync(file, "utf8");
// Some know more of their options than their first lines say, and tell it themselves.
if (help && !/help: \{|"--help"/.test(source)) {
  console.log(headComment(source));
  process.exit(0);
}
await installPackages();
const env = { ...process.env };
if (!help && ["engine", "trainer", "learn", "joined-engines"].includes(name)) {
  // What is compared with, PEFT and TRL, is in the environment of the tests alone.
  env.HONE_PYTHON ??= await setUpPython({ test: true });
  const bases = options[options.indexOf("--bases") + 1] ?? "";
  const real = bases.includes("smollm2") || (name === "engine" && !options.includes("--bases"));
  if (name === "learn" ? options.some((option) => option.endsWith("inbox")) : real)
    env.HONE_SMOLLM2 ??= await setUpModel("smollm2");
  env.HONE_VLLM_PYTHON ||= (await import("./vllm/environment.mjs")).findVllmPython() ?? "";
}
const refusing = ["--import", pathToFileURL(join(root, "scripts/refuse-options.mjs")).href];
process.exit(
  (await run(process.execPath, [...refusing, ...tsx, file, ...options], { cwd: root, env })).status,
);

/**
 * What stands at the beginning of a program: how it is called, and what it is for.
 *
 * @param {string} text
 */
function headComment(text) {
  const lines = text.replace(/^#!.*\n/, "").split("\n");
  const end = lines.findIndex((line) => !line.startsWith("//"));
  return lines
    .slice(0, end)
    .map((line) => line.replace(/^\/\/ ?/, ""))
    .join("\n");
}
