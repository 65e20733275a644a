import { stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { HoneError } from "@hone/core";
import { sourceOf } from "./task-fingerprint.ts";
import { requireTask, type Task } from "./task.ts";

export interface LoadedTask {
  task: Task<unknown>;
  path: string;
  /** Tells the file from itself after a change. */
  taskSource: string;
}

/** Reads a task file, TypeScript or JavaScript: its default export is what defineTask gave. */
export async function loadTask(given: string): Promise<LoadedTask> {
  const path = resolve(given);
  const file = await stat(path).catch(() => null);
  if (!file?.isFile()) throw invalid(`There is no file ${path}.`);
  await readTypeScript(path);
  const exported = (await import(pathToFileURL(path).href)) as { default?: unknown };
  if (exported.default === undefined) {
    throw invalid(
      `${given} has no task: write \`export default defineTask({ train, heldOut, rollout })\` there.`,
    );
  }
  requireTask(given, exported.default);
  return { task: exported.default as Task<unknown>, path, taskSource: await sourceOf(path) };
}

/** By tsx where the task's project has it, else by what Node itself reads. */
async function readTypeScript(path: string): Promise<void> {
  if (!/\.[cm]?tsx?$/.test(path) || process.execArgv.some((arg) => /\btsx\b/.test(arg))) return;
  const tsx = find("tsx", path);
  if (tsx) {
    // As `node --import tsx` does.
    await import(pathToFileURL(tsx).href);
    return;
  }
  if ((process.features as { typescript?: unknown }).typescript) return;
  throw invalid(
    `This Node, ${process.version}, does not read TypeScript. Run \`npm install --save-dev tsx\` in the task's project, or take Node 22.18 or later.`,
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
