import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { HoneError } from "@hone/core";

/** A run's command.json: what `--resume` goes on with. */
interface BegunRun {
  /** Path of the task's file. */
  task: string;
  name: string;
  /** The options that it was begun with. */
  args: string[];
  /** Milliseconds since 1970. */
  began: number;
}

const runFile = "command.json";

/** The folder of a new run, with a name of its own unless one is given. */
export function beginRun(
  task: string,
  given: { name?: string | undefined; out?: string | undefined },
  args: readonly string[],
): { name: string; out: string } {
  const began = Date.now();
  const name = given.name ?? nameOf(task, began);
  const out = resolve(given.out ?? join("runs", name));
  if (existsSync(join(out, runFile))) {
    throw invalid(
      `${out} holds a run. Go on with it by --resume --out ${out}, or name another folder.`,
    );
  }
  mkdirSync(out, { recursive: true });
  const run: BegunRun = { task, name, args: [...args], began };
  writeFileSync(join(out, runFile), `${JSON.stringify(run, null, 2)}\n`);
  return { name, out };
}

/** The run in a folder, or else the newest one of the task in `runs/`. */
export function findRun(task: string, out: string | undefined): BegunRun & { out: string } {
  if (out !== undefined) {
    return readRun(resolve(out)) ?? fail(`There is no run in ${resolve(out)} to go on with.`);
  }
  const names = existsSync("runs") ? readdirSync("runs") : [];
  const runs = names.flatMap((name) => readRun(resolve("runs", name)) ?? []);
  const newest = runs
    .filter((run) => run.task === task)
    .sort((a, b) => a.began - b.began)
    .at(-1);
  return newest ?? fail(`There is no run of ${task} in runs/ to go on with.`);
}

function readRun(out: string): (BegunRun & { out: string }) | null {
  const file = join(out, runFile);
  if (!existsSync(file)) return null;
  return { ...(JSON.parse(readFileSync(file, "utf8")) as BegunRun), out };
}

/** `task.ts` says nothing: then the folder names the run. */
function nameOf(path: string, began: number): string {
  const file = basename(path, extname(path));
  const said = file === "task" || file === "index" ? basename(dirname(path)) : file;
  const stamp = new Date(began).toISOString().replaceAll(/[:.]/g, "-");
  const name = `${said}-${stamp}`.toLowerCase().replaceAll(/[^a-z0-9._-]/g, "-");
  return name
    .replace(/^[^a-z0-9]+/, "")
    .slice(-64)
    .replace(/^[^a-z0-9]+/, "");
}

function fail(message: string): never {
  throw invalid(message);
}

function invalid(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "out" });
}
