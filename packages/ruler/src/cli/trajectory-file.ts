import { readFile } from "node:fs/promises";
import { groupSchema, HoneError, trajectorySchema } from "@hone/core";
import type { TrajectoryGroup } from "@hone/core";

/**
 * Groups of a JSONL file, a group or a trajectory a line. Trajectories that stand alone are grouped by
 * `metadata.group`, or are each a group of their own.
 */
export async function readTrajectoryFile(path: string): Promise<TrajectoryGroup[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw badFile(`${path} cannot be read.`, cause);
  }
  const groups = new Map<string, TrajectoryGroup>();
  for (const [index, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    const where = `${path}:${index + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw badFile(`${where} is not JSON. Was the file cut?`, cause);
    }
    const group = groupSchema.safeParse(value);
    if (group.success) {
      groups.set(`${index}`, group.data);
      continue;
    }
    const single = trajectorySchema.safeParse(value);
    if (!single.success) {
      const isGroup = typeof value === "object" && value !== null && "trajectories" in value;
      const { issues } = isGroup ? group.error : single.error;
      const [issue] = issues;
      throw badFile(
        `${where} is no ${isGroup ? "group" : "trajectory"}: ${issue?.path.join(".")}: ${issue?.message}`,
        group.error,
      );
    }
    const name = single.data.metadata["group"];
    const id = name === undefined || name === null ? `line ${index + 1}` : String(name);
    const known = groups.get(id);
    if (known) known.trajectories.push(single.data);
    else {
      groups.set(id, {
        id,
        trajectories: [single.data],
        exceptions: [],
        metadata: {},
        metrics: {},
        logs: [],
      });
    }
  }
  if (groups.size === 0) throw badFile(`${path} holds no trajectory.`, undefined);
  return [...groups.values()];
}

function badFile(message: string, cause: unknown): HoneError {
  return new HoneError(message, { code: "invalid_config", cause });
}
