// `npm run hone -- serve …`: the command line of the server, from a clone. Installs what is missing first.
import process from "node:process";
import { installPackages, root, tsx } from "./install.mjs";
import { onInterrupt, run, send, start } from "./processes.mjs";

const args = process.argv.slice(2);
const command = [...tsx, "packages/server/src/cli.ts"];
/** @type {import("./processes.mjs").Started | null} */
let started = null;

onInterrupt((signal) => {
  if (started) send(started, signal);
  else process.exit(130);
});

await installPackages();
if (args[0] === "serve" && !args.includes("--help") && !args.includes("-h")) {
  // Quick where the environment is there already; what it prints is not for who reads our output.
  const { status } = await run(process.execPath, [...command, "setup"], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) process.exit(status);
}
started = start(process.execPath, [...command, ...args], { cwd: root });
process.exit(await started.ended);
