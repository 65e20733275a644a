import { dataRows, readAll, type DataRow } from "../data-rows.ts";
import { readRecord, type JudgeRecord } from "./record.ts";

/**
 * Labelled data in OpenJudge's schema, from a JSONL or Parquet file or as values. Every line is read before anything is
 * trained: bad ones are named by file and line, and none is left out in silence.
 */
export async function readJudgeData(data: string | readonly unknown[]): Promise<JudgeRecord[]> {
  const rows = typeof data === "string" ? dataRows(data) : valueRows(data);
  const name = typeof data === "string" ? data : "data";
  const none = `${name} has no line to learn from. Give at least one of {input, output}.`;
  return await readAll(rows, readRecord, none);
}

function valueRows(data: readonly unknown[]): DataRow[] {
  return data.map((value, at) => ({ place: `data[${at}]`, value: () => value }));
}
