import { stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { HoneError, kindOf } from "@hone/core";
import { sourceOf } from "./task-fingerprint.ts";
import { requireTask, type Task } from "./task.ts";

export interface LoadedTask {
  task: Task<unknown>;
  path: string;
  /** Fingerprint of the file and its imports: after a change it is another. */
  taskSource: string;
}

/** Reads a task file, TypeScript or JavaScript: its default export is what defineTask gave. */
export async function loadTask(given: string): Promise<LoadedTask> {
  const path = resolve(given);
  const file = await stat(path).catch(() => null);
  if (!file?.isFile()) {
    throw invalid(`${path} is ${file ? "no file: name the task's file in it" : "not there"}.`);
  }
  await readTypeScript(path);
  const task = await defaultExport(path, given);
  if (typeof task !== "object" || task === null) {
    const instead = task === undefined ? "" : `: its default export is ${kindOf(task)}`;
    throw invalid(
      `${given} has no task${instead}. Write \`export default defineTask({ train, heldOut, rollout })\` there.`,
    );
  }
  requireTask(given, task);
  return { task: task as Task<unknown>, path, taskSource: await sourceOf(path) };
}

/** Errors of defineTask are passed on as they are; another error is shown with its place in the file. */
async function defaultExport(path: string, given: string): Promise<unknown> {
  try {
    return ((await import(pathToFileURL(path).href)) as { default?: unknown }).default;
  } catch (error) {
    if (HoneError.isInstance(error)) throw error;
    throw new HoneError(`${given} cannot be loaded. ${placeOf(error)}`, {
      ...{ code: "invalid_config", param: "task", cause: error },
    });
  }
}

/** The head of an error's stack, and the frames in the user's own files. */
function placeOf(error: unknown): string {
  const stack = (error instanceof Error && error.stack) || String(error);
  const isFrame = (line: string) => /^ {4}at /.test(line);
  const isOurs = (line: string) => /node:|node_modules|\/run\/(?:cli|task-file)\.[jt]s/.test(line);
  return stack
    .split("\n")
    .filter((line) => !isFrame(line) || !isOurs(line))
    .join("\n");
}

/** Makes this process read TypeScript, for a file of the user: by tsx if the file's project has it, else as Node does by itself. */
export async function readTypeScript(path: string): Promise<void> {
  if (!/\.[cm]?tsx?$/.test(path) || process.execArgv.some((arg) => /\btsx\b/.test(arg))) return;
  const tsx = find("tsx", path);
  if (tsx) {
    // As `node --import tsx` does.
    await import(pathToFileURL(tsx).href);
    return;
  }
  if ((process.features as { typescript?: unknown }).typescript) return;
  throw invalid(
    `This Node, ${process.version}, does not read TypeScript. Run \`npm install --save-dev tsx\` in the project of that file, or take Node 22.18 or later.`,
  );
}

function find(name: string, from: string): string | null {
  try {
    return createRequire(from).resolve(name);
  } catch {
    return null;
  }
}

function invalid(message: string): HoneError {
  return new HoneError(message, { code: "invalid_config", param: "task" });
}
