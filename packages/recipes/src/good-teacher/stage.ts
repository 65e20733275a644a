import { createHash } from "node:crypto";
import { appendFile, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolder } from "@hone/client/run";
import { HoneError, newId, wellFormedJson } from "@hone/core";

/** A step of the pipeline: files and options in, one file out. */
export interface Stage {
  /** Its command: `relabel`. */
  name: string;
  /** The file that it makes. Beside it, `FILE.stage.json` says what it was made of. */
  out: string;
  /** Files that it reads, by what they are to it. Known by their contents, not by their paths. */
  inputs: Readonly<Record<string, string>>;
  /** What else decides the file. */
  options: Readonly<Record<string, unknown>>;
}

/** What a stage keeps while it is under way: a line for each item that is done. */
export interface Progress<Done> {
  /** What earlier starts did, by item. */
  done: ReadonlyMap<number, Done>;
  /** Keeps items that are done now. */
  keep(items: readonly { at: number; value: Done }[]): Promise<void>;
}

interface Record_ {
  stage: string;
  inputs: Record<string, string>;
  options: Record<string, unknown>;
  /** SHA-256 of the file; null while the stage is under way. */
  made: string | null;
}

/**
 * Makes the file of a stage. A stage that was interrupted goes on with what it had done. One whose file is made does
 * nothing more (`false`), unless its inputs or options have changed since: that is an error which names them, and
 * nothing is written over.
 */
export async function runStage<Done>(
  stage: Stage,
  make: (progress: Progress<Done>) => Promise<string>,
): Promise<boolean> {
  const { name, out } = stage;
  const wanted: Record_ = {
    stage: name,
    inputs: await digests(stage),
    options: JSON.parse(JSON.stringify(stage.options)) as Record<string, unknown>,
    made: null,
  };
  const before = await readRecord(out);
  const file = await read(out);
  if (!before && file !== null) {
    throw refused(`${out} is there, and no ${out}.stage.json says what it was made of.`, out);
  }
  if (before) {
    requireSame(stage, before, wanted);
    if (before.made !== null && file !== null) {
      if (sha256(file) === before.made) return false;
      throw refused(`${out} has been changed since "${name}" made it.`, out);
    }
  }
  makeFolder(dirname(out), { param: "out" });
  await replace(`${out}.stage.json`, JSON.stringify(wanted, null, 2));
  const partial = `${out}.partial`;
  const text = await make(await progressOf<Done>(partial));
  await replace(out, text);
  await replace(
    `${out}.stage.json`,
    JSON.stringify({ ...wanted, made: sha256(Buffer.from(text)) }, null, 2),
  );
  await rm(partial, { force: true });
  return true;
}

export function jsonLines(rows: readonly unknown[]): string {
  return rows.map((row) => `${wellFormedJson(JSON.stringify(row))}\n`).join("");
}

async function progressOf<Done>(partial: string): Promise<Progress<Done>> {
  const text = (await read(partial))?.toString("utf8") ?? "";
  const lines = text.slice(0, text.lastIndexOf("\n") + 1);
  // A line that was cut off when the program ended goes: what follows would be written behind it.
  if (lines.length < text.length) await writeFile(partial, lines);
  const done = new Map<number, Done>();
  for (const line of lines.split("\n").filter(Boolean)) {
    const { at, value } = JSON.parse(line) as { at: number; value: Done };
    done.set(at, value);
  }
  return {
    done,
    async keep(items) {
      if (items.length > 0) await appendFile(partial, jsonLines(items));
      for (const { at, value } of items) done.set(at, value);
    },
  };
}

async function digests({ name, inputs }: Stage): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const [role, path] of Object.entries(inputs)) {
    const content = await read(path);
    if (content === null) {
      throw new HoneError(
        `"${name}" reads ${path} (its ${role}), which is not there. Run the stage that makes it first.`,
        { code: "invalid_config", param: role },
      );
    }
    found[role] = sha256(content);
  }
  return found;
}

function requireSame({ name, out, inputs }: Stage, before: Record_, wanted: Record_): void {
  const began = before.made === null ? "was begun" : "was made";
  if (before.stage !== name) {
    throw refused(`${out} ${began} by "${before.stage}", not by "${name}".`, out);
  }
  for (const role of new Set([...Object.keys(before.inputs), ...Object.keys(wanted.inputs)])) {
    if (before.inputs[role] === wanted.inputs[role]) continue;
    const path = inputs[role];
    throw refused(
      `${out} ${began} from another ${role}${path ? ` than ${path} is now` : ""}.`,
      out,
      role,
    );
  }
  const names = new Set([...Object.keys(before.options), ...Object.keys(wanted.options)]);
  for (const option of names) {
    const [then, now] = [before.options[option], wanted.options[option]].map((value) =>
      JSON.stringify(value ?? null),
    );
    if (then === now) continue;
    throw refused(`${out} ${began} with ${option} ${then}, not ${now}.`, out, option);
  }
}

function refused(what: string, out: string, param = "out"): HoneError {
  return new HoneError(
    `${what} Put that back, choose another --out, or delete ${out}* to make it anew.`,
    { code: "invalid_config", param },
  );
}

async function readRecord(out: string): Promise<Record_ | null> {
  const text = await read(`${out}.stage.json`);
  if (text === null) return null;
  try {
    return JSON.parse(text.toString("utf8")) as Record_;
  } catch (cause) {
    throw new HoneError(`${out}.stage.json is not JSON. Delete ${out}* to make it anew.`, {
      code: "invalid_json",
      cause,
    });
  }
}

async function read(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Whole or not at all. */
async function replace(path: string, text: string): Promise<void> {
  const partial = `${path}.${newId("run")}.new`;
  await writeFile(partial, text);
  await rename(partial, path);
}

export function sha256(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}
