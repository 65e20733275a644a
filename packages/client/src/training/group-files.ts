import { readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { groupSchema, HoneError, issueText, newId, wellFormedJson } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { makeFolder } from "@hone/transport/node";
import { requireGroups, requireText } from "../argument-kinds.ts";

/** Writes groups as JSON lines, a line for each group. The file appears whole or not at all. */
export async function writeGroups(path: string, groups: readonly TrajectoryGroup[]): Promise<void> {
  requireText("writeGroups()", path, "path");
  requireGroups("writeGroups()", groups);
  makeFolder(dirname(path), { param: "path" });
  const lines = groups.map((group) => `${wellFormedJson(JSON.stringify(group))}\n`);
  const partial = `${path}.${newId("run")}.partial`;
  await writeFile(partial, lines.join(""));
  await rename(partial, path);
}

/** Of a file; or of a run's folder: the groups of all its steps, in their order, without those of evaluations. */
export async function readGroups(path: string): Promise<TrajectoryGroup[]> {
  requireText("readGroups()", path, "path");
  if (!(await isFolder(path))) return readFileOfGroups(path);
  const inner = join(path, "trajectories");
  const folder = (await isFolder(inner)) ? inner : path;
  const steps = (await readdir(folder)).filter((name) => stepNumber(name) !== null);
  if (steps.length === 0) {
    throw new HoneError(
      `${folder} holds no step of a run (step-0001.jsonl and so on). Name the folder of a run, or a file of groups.`,
      { code: "invalid_request", param: "path" },
    );
  }
  steps.sort((a, b) => (stepNumber(a) ?? 0) - (stepNumber(b) ?? 0));
  const groups: TrajectoryGroup[] = [];
  for (const name of steps) groups.push(...(await readFileOfGroups(join(folder, name))));
  return groups;
}

async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => null);
  return found?.isDirectory() ?? false;
}

/** Null of what is not the trajectories of a step of a run. */
function stepNumber(name: string): number | null {
  const digits = /^step-(\d+)\.jsonl$/.exec(name)?.[1];
  return digits === undefined ? null : Number(digits);
}

async function readFileOfGroups(path: string): Promise<TrajectoryGroup[]> {
  const lines = (await readFile(path, "utf8")).split("\n");
  return lines.flatMap((line, index) =>
    line.trim() ? [readGroup(line, `${path}:${index + 1}`)] : [],
  );
}

function readGroup(line: string, where: string): TrajectoryGroup {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new HoneError(`${where} is not JSON. Was the file cut?`, {
      code: "invalid_json",
      cause,
    });
  }
  const parsed = groupSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new HoneError(`${where} is not a trajectory group: ${issueText(parsed.error, "it")}.`, {
    code: "invalid_request",
    cause: parsed.error,
  });
}
