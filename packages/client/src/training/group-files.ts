import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { groupSchema, HoneError, issueText, newId, wellFormedJson } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";
import { requireGroups, requireText } from "../argument-kinds.ts";

/** Writes groups as JSON lines, a line for each group. The file appears whole or not at all. */
export async function writeGroups(path: string, groups: readonly TrajectoryGroup[]): Promise<void> {
  requireText("writeGroups()", path, "path");
  requireGroups("writeGroups()", groups);
  await mkdir(dirname(path), { recursive: true });
  const lines = groups.map((group) => `${wellFormedJson(JSON.stringify(group))}\n`);
  const partial = `${path}.${newId("run")}.partial`;
  await writeFile(partial, lines.join(""));
  await rename(partial, path);
}

export async function readGroups(path: string): Promise<TrajectoryGroup[]> {
  requireText("readGroups()", path, "path");
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
