import { printableLine } from "@hone/core";

/** Rows as lines with aligned columns. Numbers to the right. */
export function table(rows: readonly (readonly (string | number | null)[])[]): string {
  const cells = rows.map((row) => row.map((cell) => formatCell(cell)));
  const widths = (cells[0] ?? []).map((_, at) =>
    Math.max(...cells.map((row) => row[at]?.length ?? 0)),
  );
  return cells
    .map((row) =>
      row
        .map((cell, at) =>
          at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function formatCell(cell: string | number | null): string {
  if (cell === null) return "-";
  if (typeof cell === "string") return printableLine(cell);
  return Number.isInteger(cell) ? String(cell) : cell.toFixed(3);
}
