// What a clone needs before anything runs: a Node that is new enough, the workspace's packages, Python's.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { run } from "./processes.mjs";

export const root = fileURLToPath(new URL("..", import.meta.url));
const pnpmVersion = "12.21.0";

/** Installs the workspace's packages unless the lock file is the one that they came from. */
export async function installPackages() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    fail(
      `Node ${process.versions.node} is too old. Install 20.19 or newer (22 or 24 recommended).`,
    );
  }
  const digest = createHash("sha256")
    .update(readFileSync(join(root, "pnpm-lock.yaml")))
    .digest("hex");
  const marker = join(root, "node_modules", ".hone-installed");
  if (existsSync(marker) && readFileSync(marker, "utf8") === digest) return;
  console.log("Installing the packages of the workspace …");
  const [command, ...prefix] = pnpm();
  const { status } = await run(command, [...prefix, "install", "--frozen-lockfile"], { cwd: root });
  if (status !== 0) fail("The packages could not be installed; the lines above say why.");
  writeFileSync(marker, digest);
}

/** The command of the workspace's own pnpm, whichever is installed. */
export function pnpm() {
  const own = spawnSync("pnpm", ["--version"], { encoding: "utf8" });
  return own.stdout?.trim() === pnpmVersion ? ["pnpm"] : ["npx", "--yes", `pnpm@${pnpmVersion}`];
}

/** The interpreter of the Python environment, made if it is missing. */
export async function setUpPython(options = { test: false }) {
  const args = [...tsx, "packages/server/src/cli.ts", "setup", ...(options.test ? ["--test"] : [])];
  const { status, stdout } = await run(process.execPath, args, {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) fail("The Python environment could not be made; the lines above say why.");
  return stdout.trim().split("\n").at(-1);
}

/**
 * The folder of a base that `setup` can bring.
 *
 * @param {string} name
 */
export async function setUpModel(name) {
  const args = [...tsx, "packages/server/src/cli.ts", "setup", "--model", name];
  const { status, stdout } = await run(process.execPath, args, {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) fail(`The model ${name} could not be set up; the lines above say why.`);
  return stdout.trim().split("\n").at(-1);
}

/** Node's arguments that run TypeScript from source. */
export const tsx = ["--import", "tsx", "--conditions=@hone/source"];

export function fail(message) {
  console.error(message);
  process.exit(1);
}
