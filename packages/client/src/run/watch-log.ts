import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { wellFormedJson } from "@hone/core";
import type { Advice } from "../stopping/advise.ts";
import type { Alarm } from "../stopping/alarms.ts";

/** Why a run ended before its last step. */
export interface Stopped {
  by: "goal" | "alarm" | "budget";
  /** The reason, the alarm's code, or what of the budget. */
  what: string;
  /** Steps trained. */
  step: number;
  message: string;
}

/** A line of watch.jsonl: what was seen in a run, and what was decided. */
export type WatchRecord =
  | ({ type: "alarm" } & Alarm)
  | ({ type: "advice"; step: number } & Advice)
  | { type: "paused"; step: number; alarms: string[] }
  | { type: "set-aside"; step: number; rollouts: string[] }
  | { type: "resumed"; step: number }
  /** A changed task was accepted: what it was of the settings, and what it is. */
  | {
      type: "task-changed";
      /** Batches before it, those that trained nothing included: steps of metrics.jsonl. */
      step: number;
      /** Steps that had trained. Absent in the records of older versions. */
      trained?: number | undefined;
      from: Record<string, unknown>;
      to: Record<string, unknown>;
    }
  /** The base's held-out answers were made under the changed task. */
  | { type: "base-evaluated" }
  | ({ type: "stopped" } & Stopped);

const file = (out: string) => join(out, "watch.jsonl");

export async function addWatchRecord(out: string, record: WatchRecord): Promise<void> {
  const line = JSON.stringify({ at: new Date().toISOString(), ...record });
  await appendFile(file(out), `${wellFormedJson(line)}\n`);
}

/** Whether the stored answers of the base are of an earlier reward than that which the run has now. */
export function baseIsStale(records: readonly WatchRecord[]): boolean {
  return (
    records.findLastIndex(({ type }) => type === "task-changed") >
    records.findLastIndex(({ type }) => type === "base-evaluated")
  );
}

/** A line that was cut off is left out. */
export async function readWatchLog(out: string): Promise<WatchRecord[]> {
  const text = await readFile(file(out), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  return text.split("\n").flatMap((line): WatchRecord[] => {
    try {
      return line.trim() ? [JSON.parse(line) as WatchRecord] : [];
    } catch {
      return [];
    }
  });
}
