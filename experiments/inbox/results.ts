import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { TrajectoryGroup } from "@hone/client";

export type Results = Record<string, TrajectoryGroup[]>;

/** What an experiment has measured so far. It stands in FOLDER/results.json, and the same command goes on there. */
export async function openResults(folder: string): Promise<{
  folder: string;
  results: Results;
  /** Measures what is not there yet, and writes it down. */
  keep: (key: string, make: () => Promise<TrajectoryGroup[]>) => Promise<void>;
}> {
  const out = resolve(folder);
  const file = join(out, "results.json");
  await mkdir(out, { recursive: true });
  const results: Results = existsSync(file)
    ? (JSON.parse(await readFile(file, "utf8")) as Results)
    : {};
  const keep = async (key: string, make: () => Promise<TrajectoryGroup[]>): Promise<void> => {
    if (key in results) return;
    results[key] = await make();
    await writeFile(file, JSON.stringify(results));
  };
  return { folder: out, results, keep };
}
