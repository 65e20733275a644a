import { HoneError } from "@hone/core";
import { parquetRows } from "../train-judge/read-data.ts";
import { parsedRow, preferenceSchema, readRows, type Preference } from "./preferences.ts";

/** Preferences of a JSONL or Parquet file in UltraFeedback's schema. */
export async function readPreferences(path: string): Promise<Preference[]> {
  if (!/\.parquet$/i.test(path)) return await readRows(path, preferenceSchema);
  const rows: Preference[] = [];
  for await (const { place, value } of parquetRows(path)) {
    rows.push(parsedRow(value(), place, preferenceSchema));
  }
  if (rows.length > 0) return rows;
  throw new HoneError(`${path} has no rows.`, { code: "invalid_config" });
}
