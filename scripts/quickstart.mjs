// `npm run quickstart [-- options of the example]`: installs what is missing, starts a server on a free
// loopback port, trains the agent of examples/2048, and stops the server. Ctrl-C leaves no process behind.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fail, installPackages, root, setUpPython, tsx } from "./install.mjs";

const args = process.argv.slice(2);
const example = ["examples/2048/src/train.ts"];
if (args.includes("--help") || args.includes("-h")) {
  console.log("npm run quickstart -- [options of the example]\n");
  installPackages();
  const help = spawn(process.execPath, [...tsx, ...example, "--help"], {
    cwd: root,
    stdio: "inherit",
  });
  help.on("exit", (code) => process.exit(code ?? 1));
} else {
  await quickstart();
}

async function quickstart() {
  const startedAt = performance.now();
  installPackages();
  const python = setUpPython();
  const stamp = new Date().toISOString().replace(/[:.]/g, "-").slice(0, 19);
  const out = join(root, "runs", `quickstart-${stamp}`);
  const dataDir = join(out, "server");
  mkdirSync(dataDir, { recursive: true });

  /** @type {import("node:child_process").ChildProcess | undefined} */
  let server;
  /** @type {import("node:child_process").ChildProcess | undefined} */
  let agent;
  let interrupted = 0;
  for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
    process.on(signal, () => {
      interrupted++;
      // Each child leads a group of its own, so that only we decide who ends first: the agent closes its
      // games, then the server ends its children.
      if (agent) end(agent, interrupted > 1 ? "SIGKILL" : "SIGTERM");
      else if (server) end(server, "SIGTERM");
      else process.exit(130);
    });
  }

  const key = await startServer();
  const url = JSON.parse(readFileSync(join(dataDir, "server.json"), "utf8")).url;
  console.log(`Server: ${url}   log: ${join(out, "server.log")}`);
  const env = { ...process.env, HONE_URL: url, HONE_API_KEY: key };
  agent = spawn(process.execPath, [...tsx, ...example, "--out", out, ...args], {
    cwd: root,
    env,
    stdio: ["ignore", "inherit", "inherit"],
    detached: true,
  });
  const code = await exitOf(agent);
  agent = undefined;
  end(server, "SIGTERM");
  await Promise.race([exitOf(server), delay(15_000, undefined, { ref: false })]);
  end(server, "SIGKILL");
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  if (interrupted > 0) console.error("Stopped; nothing is left running.");
  else console.log(`Quickstart: ${seconds} s in all. Files: ${out}`);
  process.exit(interrupted > 0 ? 130 : code);

  async function startServer() {
    const { openSync } = await import("node:fs");
    const log = openSync(join(out, "server.log"), "a");
    server = spawn(
      process.execPath,
      [
        ...tsx,
        "packages/server/src/cli.ts",
        "serve",
        "--base",
        "models/hone-2048-1m",
        "--port",
        "0",
        "--data-dir",
        dataDir,
      ],
      {
        cwd: root,
        env: { ...process.env, HONE_PYTHON: python, HONE_API_KEY: "" },
        stdio: ["ignore", log, log],
        detached: true,
      },
    );
    const ended = exitOf(server).then(() => "ended");
    for (;;) {
      if (interrupted > 0) {
        await ended;
        process.exit(130);
      }
      try {
        JSON.parse(readFileSync(join(dataDir, "server.json"), "utf8"));
        return readFileSync(join(dataDir, "key"), "utf8").trim();
      } catch {
        // Not ready yet.
      }
      if ((await Promise.race([ended, delay(100)])) === "ended") {
        if (interrupted > 0) process.exit(130);
        fail(`The server did not start:\n${readFileSync(join(out, "server.log"), "utf8").trim()}`);
      }
    }
  }
}

/** @param {import("node:child_process").ChildProcess} child */
function exitOf(child) {
  if (child.exitCode !== null || child.signalCode !== null)
    return Promise.resolve(child.exitCode ?? 1);
  return new Promise((resolve) => {
    child.once("exit", (code) => resolve(code ?? 1));
  });
}

/** Signals the group of a child that we started and that has not ended. */
function end(child, signal) {
  if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It ended in between.
  }
}
