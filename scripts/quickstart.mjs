// `npm run quickstart [-- 2048|email|inbox --out FOLDER and other options of `@hone/client train`]`: installs what is
// missing, starts a server on a free loopback port, trains the example's agent, and stops the server.
// Everything that it writes is in one folder. Ctrl-C leaves no process behind.
// `-- --resume [FOLDER]` goes on with the run in that folder, or with the newest, where its last step ended.
import { existsSync, openSync, readFileSync, statSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { isAbsolute, join } from "node:path";
import { fail, installPackages, root, setUpModel, setUpPython, tsx } from "./install.mjs";
import { end, endAll, onInterrupt, run, send, start } from "./processes.mjs";
import { broughtModels, examples, servedWith } from "./quickstart-examples.mjs";
import {
  chooseRun,
  forgetRun,
  makeRunFolder,
  putBack,
  savedRun,
  saveRun,
  tryRunFolder,
} from "./quickstart-runs.mjs";

/** How long the agent may take to close its games after Ctrl-C, and the server to stop. */
const agentLimitMs = 15_000;
const serverLimitMs = 15_000;

const startedAt = performance.now();
const chosen = chooseRun(process.argv.slice(2));
const { out } = chosen;
const story = examples[chosen.story];
if (!story) {
  fail(
    `There is no example "${chosen.story}". Choose ${Object.keys(examples)
      .join(", ")
      .replace(/, (?=[^,]*$)/, " or ")}.`,
  );
}
const example = [...tsx, "packages/client/src/run/cli.ts", "train", story.task];
/** @type {import("./processes.mjs").Started | null} */
let agent = null;
/** @type {import("./processes.mjs").Started | null} */
let server = null;
let interrupts = 0;

onInterrupt((signal) => {
  interrupts++;
  if (!agent) void stop(130);
  else {
    // The agent closes its games first, with the server still there; a second Ctrl-C cuts that short.
    send(agent, signal);
    if (interrupts === 1) setTimeout(() => void stop(130), agentLimitMs).unref();
  }
});

await installPackages();
if (chosen.help) {
  console.log(
    "npm run quickstart -- [2048 | email | inbox] [--out folder of the run] [options of the example]\n" +
      "npm run quickstart -- --resume [folder of the run, or its name in runs/; default: the newest]\n" +
      "  --base FOLDER|ID   another base: a folder, an id on the hub, or smollm2\n" +
      "  --device cuda      serve and train on the GPU (default: cpu)\n",
  );
  process.exit((await run(process.execPath, [...example, "--help"], { cwd: root })).status);
}
// Now, not behind the minutes that a first set-up takes.
tryRunFolder(out);
const python = await setUpPython();
const wanted = chosen.base ?? story.base;
const base = broughtModels.includes(wanted) ? await setUpModel(wanted) : wanted;
const serverData = join(out, "server");
const begun = existsSync(join(out, "command.json"));
makeRunFolder(out);
const before = savedRun(out);
const totalsBefore = changedAt("totals.json");
saveRun(chosen);
console.log(`Starting a server on ${wanted} …`);
const connection = await startServer();
console.log(`Server: ${connection.HONE_URL}   log: ${join(out, "server.log")}`);

agent = start(
  process.execPath,
  // It may have been cut off before it began its run.
  [
    ...example,
    ...(begun ? ["--resume"] : []),
    ...chosen.args,
    "--out",
    out,
    "--server-data",
    serverData,
  ],
  {
    cwd: root,
    // Its input is held open: where this process is killed outright, it ends, and the agent with it.
    env: { ...process.env, ...connection, HONE_STOP_AT_EOF: "1" },
    stdio: ["pipe", "inherit", "inherit"],
  },
);
const lost = server?.ended.then(() => null) ?? null;
const status = await Promise.race([agent.ended, lost]);
if (interrupts > 0) await stop(130);
// A start that the agent refused is nothing to go on with.
if (status !== null && !existsSync(join(out, "command.json"))) forgetRun(out);
// Whoever passes the checks saves its totals at the end: one that was refused keeps the options that it had.
else if (status && before && changedAt("totals.json") === totalsBefore) putBack(out, before);
if (status === null) {
  console.error(`The server ended before the agent was through. Its log: ${out}/server.log`);
  await stop(1);
}
console.log(`Quickstart: ${((performance.now() - startedAt) / 1000).toFixed(0)} s. Files: ${out}`);
await stop(status);

/**
 * When a file of the run was last written; 0 where it is not there.
 *
 * @param {string} name
 */
function changedAt(name) {
  return statSync(join(out, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** Resolves, when it serves, to the two variables that it prints. */
async function startServer() {
  const log = join(out, "server.log");
  const options = servedWith(story, chosen);
  const serve = ["serve", "--base", base, "--port", "0", "--stop-at-eof", ...options];
  // A base on this disk needs nothing fetched; an id of the hub may.
  const offline = isAbsolute(base) || base === story.base ? { HF_HUB_OFFLINE: "1" } : {};
  server = start(
    process.execPath,
    [...tsx, "packages/server/src/cli.ts", ...serve, "--data-dir", serverData],
    {
      cwd: root,
      // The server makes a key of its own.
      env: { ...process.env, HONE_PYTHON: python, HONE_API_KEY: "", ...offline },
      stdio: ["pipe", "pipe", openSync(log, "a")],
    },
  );
  const variables = {};
  const ready = new Promise((resolve) => {
    createInterface({ input: server.child.stdout }).on("line", (line) => {
      const [, name, value] = /^export (HONE_\w+)=(.*)$/.exec(line) ?? [];
      if (name) variables[name] = value;
      if (variables.HONE_URL && variables.HONE_API_KEY) resolve(variables);
    });
  });
  const first = await Promise.race([ready, server.ended]);
  if (typeof first === "object") return first;
  // `stop` ends the process.
  if (interrupts > 0) return new Promise(() => undefined);
  return fail(`The server did not start:\n${readFileSync(log, "utf8").trim()}`);
}

/**
 * The server stops when its standard input ends, and its own children end with it.
 *
 * @param {number} code
 */
async function stop(code) {
  if (agent) await end(agent, { limitMs: 2_000 });
  if (server) {
    server.child.stdin?.end();
    const late = new Promise((resolve) => setTimeout(resolve, serverLimitMs).unref());
    await Promise.race([server.ended, late]);
  }
  await endAll();
  if (interrupts > 0) console.error("Stopped; nothing is left running.");
  // The server's data is in the folder: another server on it has the model as it was.
  if (interrupts > 0 && agent) {
    console.error(`To go on: npm run quickstart -- --resume ${out}`);
  }
  process.exit(code);
}
