#!/usr/bin/env node
// pnpm bench [loop|engine|packing] [options]: loop is what a training loop costs here, engine compares engines,
// packing compares a training step with shared tokens once and with a row for each sequence.
import { join } from "node:path";
import process from "node:process";
import { installPackages, root, tsx } from "./install.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
const [first, ...rest] = process.argv.slice(2);
const named = first !== undefined && !first.startsWith("-");
const name = named ? first : "loop";
if (!["loop", "engine", "packing"].includes(name)) {
  console.error(`There is no benchmark "${name}". Use loop, engine or packing.`);
  process.exit(2);
}
await installPackages();
const options = named ? rest : process.argv.slice(2);
const file = join(root, "bench", `${name}.ts`);
process.exit((await run(process.execPath, [...tsx, file, ...options], { cwd: root })).status);
