import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** What a run's scores are scores of. */
export interface TaskFingerprint {
  metric: string;
  heldOutScenarios: string;
  /** Digest of the task's file and of the files that it imports by relative paths. Null if no file is known. */
  taskSource: string | null;
}

/** What an error says has changed, by the part of the fingerprint that differs. */
export const taskChanges: Readonly<Record<string, string>> = {
  heldOutScenarios: "it holds out other scenarios",
  metric: "another metric decides",
  taskSource: "its file, or one that it imports, is another",
} satisfies Record<keyof TaskFingerprint, string>;

export function fingerprintOf(
  { metric = "reward", heldOut }: { metric?: string | undefined; heldOut: readonly unknown[] },
  taskSource: string | undefined,
): TaskFingerprint {
  const heldOutScenarios = digest(JSON.stringify(heldOut));
  return { metric, heldOutScenarios, taskSource: taskSource ?? null };
}

/**
 * Digest of a file's text and of the texts that it imports by relative paths. Paths do not count, so a copy is the
 * same task.
 */
export async function sourceOf(path: string): Promise<string> {
  return digest(JSON.stringify(await readSources(resolve(path))));
}

/** The texts of a file and of those that it imports by a relative path, each once. */
async function readSources(path: string, seen = new Set<string>()): Promise<string[]> {
  if (seen.has(path)) return [];
  seen.add(path);
  const text = await readSource(path);
  if (text === null) return [];
  const imported = [...text.matchAll(/\b(?:from|import)\s*\(?\s*["'](\.{1,2}\/[^"']+)["']/g)];
  const sources = [text];
  for (const [, relative = ""] of imported) {
    sources.push(...(await readSources(resolve(dirname(path), relative), seen)));
  }
  return sources;
}

/** An import may name a file by what it is compiled to, or without its ending. */
async function readSource(path: string): Promise<string | null> {
  const others = [path.replace(/\.js$/, ".ts"), path.replace(/\.mjs$/, ".mts")];
  for (const candidate of new Set([path, ...others, `${path}.ts`, `${path}.js`])) {
    const text = await readFile(candidate, "utf8").catch(() => null);
    if (text !== null) return text;
  }
  return null;
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}
