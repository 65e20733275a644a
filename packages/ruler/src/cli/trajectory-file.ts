import { readFile } from "node:fs/promises";
import { groupSchema, HoneError, trajectorySchema } from "@hone/core";
import type { Trajectory, TrajectoryGroup } from "@hone/core";
import { foreignTrajectories } from "./foreign-trajectories.ts";

/**
 * Groups of a JSONL file, a group or a trajectory a line, or of one JSON array of them. Trajectories that stand alone
 * are grouped by `metadata.group`, or are each a group of their own. Files of ART and of TRL are read too.
 */
export async function readTrajectoryFile(path: string): Promise<TrajectoryGroup[]> {
  const groups = new Map<string, TrajectoryGroup>();
  const add = (id: string, trajectory: Trajectory): void => {
    const known = groups.get(id);
    if (known) known.trajectories.push(trajectory);
    else groups.set(id, { ...emptyGroup, id, trajectories: [trajectory] });
  };
  for (const { value, where, line } of recordsOf(await readText(path), path)) {
    const group = groupSchema.safeParse(value);
    if (group.success) {
      groups.set(line, group.data);
      continue;
    }
    const single = trajectorySchema.safeParse(value);
    if (single.success) {
      const name = single.data.metadata["group"];
      add(name === undefined || name === null ? line : `group ${String(name)}`, single.data);
      continue;
    }
    const foreign = foreignTrajectories(value, line);
    for (const one of foreign ?? []) add(one.group ?? line, one.trajectory);
    if (foreign) continue;
    const isGroup = typeof value === "object" && value !== null && "trajectories" in value;
    const [issue] = isGroup ? group.error.issues : single.error.issues;
    throw badFile(
      `${where} is no ${isGroup ? "group" : "trajectory"}: ${issue?.path.join(".") || "the whole"}: ${issue?.message}. Hone's files are read, ART's, and lines of TRL with "prompt" and "completion".`,
      group.error,
    );
  }
  if (groups.size === 0) throw badFile(`${path} holds no trajectory.`, undefined);
  return [...groups.values()];
}

const emptyGroup = { exceptions: [], metadata: {}, metrics: {}, logs: [] };

/** Without the mark that some editors and exports put before the text. */
async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = { ENOENT: "There is no file", EISDIR: "This is a folder, not a file:" }[code ?? ""];
    throw badFile(
      why
        ? `${why} ${path}. Name a JSONL file of trajectories, such as runs/…/trajectories/step-0001.jsonl.`
        : `${path} cannot be read (${code ?? String(cause)}).`,
      cause,
    );
  }
  if (bytes.subarray(0, 4).toString("latin1") === "PAR1") {
    throw badFile(
      `${path} is a Parquet file. Make JSON lines of it: python -c "import pandas; pandas.read_parquet('${path}').to_json('trajectories.jsonl', orient='records', lines=True)"`,
      undefined,
    );
  }
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  return new TextDecoder().decode(bytes);
}

/** The records of a file, a line each; or those of one array over many lines. */
function* recordsOf(
  text: string,
  path: string,
): Generator<{ value: unknown; where: string; line: string }> {
  if (text.trimStart().startsWith("[")) {
    const all = parsed(text, path);
    for (const [index, value] of (all as unknown[]).entries()) {
      yield { value, where: `${path}[${index}]`, line: `record ${index + 1}` };
    }
    return;
  }
  for (const [index, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    const where = `${path}:${index + 1}`;
    yield { value: parsed(line, where), where, line: `line ${index + 1}` };
  }
}

function parsed(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw badFile(`${where} is not JSON. Was the file cut?`, cause);
  }
}

function badFile(message: string, cause: unknown): HoneError {
  return new HoneError(message, { code: "invalid_config", cause });
}
