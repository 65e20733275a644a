import { printableLine } from "@hone/core";

export interface Column {
  title: string;
  /** Aligns the column to the right, for numbers. */
  right?: boolean | undefined;
}

/** A table as people read it in a terminal: two spaces between columns, no lines. */
export function table(columns: readonly Column[], given: readonly (readonly string[])[]): string {
  const rows = given.map((cells) => cells.map(printableLine));
  const widths = columns.map(({ title }, i) =>
    Math.max(title.length, ...rows.map((row) => (row[i] ?? "").length)),
  );
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ right }, i) => {
        const cell = cells[i] ?? "";
        return right ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0);
      })
      .join("  ")
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...rows.map(line)].join("\n");
}

/** `name  value` for each, the values in one column. */
export function fields(entries: readonly (readonly [string, string])[]): string {
  const width = Math.max(0, ...entries.map(([name]) => name.length));
  return entries
    .map(([name, value]) => `${name.padEnd(width)}  ${printableLine(value)}`.trimEnd())
    .join("\n");
}

export function number(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size !== 0 && size < 1e-3 ? value.toExponential(2) : value.toPrecision(digits);
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = "B";
  for (const next of units) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${value.toFixed(1)} ${unit}`;
}

export function seconds(ms: number | null): string {
  return ms === null ? "–" : (ms / 1000).toFixed(1);
}

/** Local time, to the second. */
export function time(ms: number | null): string {
  if (ms === null) return "–";
  const at = new Date(ms);
  const local = new Date(ms - at.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replace("T", " ");
}

export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}
