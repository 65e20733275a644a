import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import type { PausedRun } from "./paused-run.ts";
import { addWatchRecord } from "./watch-log.ts";

type Values = Record<string, string | number | boolean | null>;

/** What of a paused run's task is another now: the values that it began with, and those it goes on with. */
export interface AcceptedChange {
  from: Values;
  to: Values;
}

/** What scores of the run stand on, so that nothing of it may change in its course. */
const fixed = new Set([
  ...["metric", "heldOutScenarios", "name", "seed", "temperature", "answerTokens", "verdict"],
  ...["shuffleRewards", "base"],
]);

/**
 * Null where nothing was accepted. Only a paused run takes another task. A change that leaves no trace, as of a
 * function in a program, is one too: it has no values.
 */
export async function acceptedChange(
  out: string,
  {
    kept,
    paused,
    accept = false,
  }: { kept: Values; paused: PausedRun | null; accept?: boolean | undefined },
): Promise<AcceptedChange | null> {
  if (!accept) return null;
  if (!paused) {
    throw new HoneError(
      `acceptChange is for a paused run, and that in ${out} is not: begin another run of the changed task.`,
      { code: "invalid_config", param: "acceptChange" },
    );
  }
  const known = await readSettings(out);
  const names = Object.keys(kept).filter(
    (name) => name in known && known[name] !== kept[name] && !fixed.has(name),
  );
  return { from: pick(known, names), to: pick(kept, names) };
}

/** From now on the run is one of the changed task. */
export async function writeAccepted(
  out: string,
  { from, to }: AcceptedChange,
  { batch, trained }: PausedRun,
): Promise<void> {
  const path = join(out, "settings.json");
  const settings = { ...(await readSettings(out)), ...to };
  await addWatchRecord(out, { type: "task-changed", step: batch, trained, from, to });
  await writeFile(`${path}.partial`, `${JSON.stringify(settings, null, 2)}\n`);
  await rename(`${path}.partial`, path);
}

async function readSettings(out: string): Promise<Values> {
  return JSON.parse(await readFile(join(out, "settings.json"), "utf8")) as Values;
}

function pick(values: Values, names: readonly string[]): Values {
  return Object.fromEntries(names.map((name) => [name, values[name] ?? null]));
}
