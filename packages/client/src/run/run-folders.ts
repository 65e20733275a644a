import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { mkdtemp, rmdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { HoneError } from "@hone/core";
import { makeFolder } from "@hone/transport/node";

/** A run as its command.json keeps it: what `--resume` goes on with. */
interface Command {
  /** Path of the task's file. */
  task: string;
  /** The model's name. */
  name: string;
  /** The options that it was begun with. */
  args: string[];
  /** Milliseconds since 1970. */
  began: number;
}

export interface RunFolder extends Command {
  out: string;
}

/** What the options say of it. */
interface Named {
  name?: string | undefined;
  out?: string | undefined;
}

const commandFile = "command.json";

/**
 * A new run, with a name of its own unless one is given. A folder that holds a run is refused. Nothing is written:
 * `keepRun` does that, once the run has passed its checks.
 */
export function newRun(task: string, given: Named, args: readonly string[]): RunFolder {
  const began = Date.now();
  const name = given.name ?? nameOf(task, began);
  const out = resolve(given.out ?? join("runs", name));
  if (existsSync(join(out, commandFile))) {
    throw invalid(
      `${out} holds a run. Go on with it by --resume --out ${out}, or name another folder.`,
    );
  }
  return { task, name, args: [...args], began, out };
}

export function keepRun({ out, ...command }: RunFolder): void {
  makeFolder(out, { param: "out" });
  const file = join(out, commandFile);
  // Whole or not at all: the run may be killed at any moment.
  writeFileSync(`${file}.partial`, `${JSON.stringify(command, null, 2)}\n`);
  renameSync(`${file}.partial`, file);
}

/** Refuses a folder that cannot be made or written into, and leaves nothing made. */
export async function requireWritable(out: string): Promise<void> {
  let place = out;
  while (!existsSync(place)) place = dirname(place);
  const refused = (why: string, cause?: unknown) =>
    new HoneError(`The run's files cannot be kept in ${out}: ${why}. Name another folder.`, {
      ...{ code: "invalid_config", param: "out", cause },
    });
  if (!(await stat(place)).isDirectory()) throw refused(`${place} is no folder`);
  try {
    // Tried, because rights do not say it all: nothing can be made in /proc, and Node would try for ever.
    await rmdir(await mkdtemp(join(place, ".hone-")));
  } catch (cause) {
    throw refused(`${place} may not be written into`, cause);
  }
}

/** The run in a folder, or else the newest one of the task in `runs/`. It keeps the name that it began with. */
export function findRun(task: string, { name, out }: Named): RunFolder {
  const run = out === undefined ? newestRun(task) : readRun(resolve(out));
  if (!run) {
    const where = out === undefined ? `of ${task} in ${resolve("runs")}` : `in ${resolve(out)}`;
    throw invalid(
      `There is no run ${where} to go on with. Name its folder by --out, or leave --resume out to begin one.`,
    );
  }
  if (name !== undefined && name !== run.name) {
    throw new HoneError(
      `The run in ${run.out} trains the model ${run.name}, not ${name}. Leave --name out to go on with it, or leave --resume out to begin a run of ${name}.`,
      { code: "invalid_config", param: "name" },
    );
  }
  return run;
}

function newestRun(task: string): RunFolder | undefined {
  const names = existsSync("runs") ? readdirSync("runs") : [];
  return names
    .flatMap((name) => {
      try {
        return readRun(resolve("runs", name)) ?? [];
      } catch (error) {
        // A damaged run keeps nobody from going on with another.
        if (HoneError.isInstance(error)) return [];
        throw error;
      }
    })
    .filter((run) => run.task === task)
    .sort((a, b) => a.began - b.began)
    .at(-1);
}

function readRun(out: string): RunFolder | null {
  const file = join(out, commandFile);
  if (!existsSync(file)) return null;
  let read: unknown;
  try {
    read = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw damaged(file, cause);
  }
  if (!isCommand(read)) throw damaged(file);
  return { ...read, out };
}

function isCommand(read: unknown): read is Command {
  if (typeof read !== "object" || read === null) return false;
  const { task, name, args, began } = read as Partial<Record<keyof Command, unknown>>;
  const texts: unknown[] = [task, name, ...(Array.isArray(args) ? args : [null])];
  return texts.every((text) => typeof text === "string") && typeof began === "number";
}

function damaged(file: string, cause?: unknown): HoneError {
  return new HoneError(
    `${file} is not what a run wrote, so that the run cannot go on. Restore it, or begin another run.`,
    { code: "invalid_config", param: "out", cause },
  );
}

/** A file called `task` or `index` says nothing about the task: then its folder names the run. */
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

function invalid(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "out" });
}
