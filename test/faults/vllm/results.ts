import { appendFileSync, existsSync, readFileSync } from "node:fs";

/** What came of one fault. */
export interface FaultResult {
  fault: string;
  what: string;
  at: string;
  /** Until it was noticed, and until the engine served again; null where there is nothing to wait for. @unit s */
  noticed: number | null;
  back: number | null;
  /** What a user or an operator is told. */
  said: string;
  /** Streams that ended whole, broke off, and were given up before they had begun. */
  answers: number;
  broken: number;
  failed: number;
  /** Processes that were left over. */
  left: number;
  wrong: string[];
  /** Of the machine, over the last minute. */
  load: number;
}

/** The last result of each fault that the file has; what a death cut short is left out. */
export function readResults(file: string): Map<string, FaultResult> {
  const found = new Map<string, FaultResult>();
  if (!existsSync(file)) return found;
  for (const line of readFileSync(file, "utf8").split("\n")) {
    const result = resultOf(line);
    if (result) found.set(result.fault, result);
  }
  return found;
}

function resultOf(line: string): FaultResult | null {
  try {
    return JSON.parse(line) as FaultResult;
  } catch {
    return null;
  }
}

export function noteResult(file: string, result: FaultResult): void {
  appendFileSync(file, `${JSON.stringify(result)}\n`);
}

/** The faults that are still to be tried: those without a result, or with one that is not as it should be. */
export function stillToTry<Fault extends { name: string }>(
  faults: readonly Fault[],
  done: ReadonlyMap<string, FaultResult>,
): Fault[] {
  return faults.filter(({ name }) => (done.get(name)?.wrong.length ?? 1) > 0);
}

export function tableOf(results: readonly FaultResult[]): string {
  return [
    "| what | noticed (s) | what is said | serves again (s) | streams: whole, broken off, given up | processes left | as it should be |",
    "|---|---|---|---|---|---|---|",
    ...results.map(rowOf),
  ].join("\n");
}

export function rowOf(result: FaultResult): string {
  const { what, noticed, said, back, answers, broken, failed, left, wrong } = result;
  const seconds = (value: number | null): string =>
    value === null ? "–" : value.toFixed(value < 10 ? 1 : 0);
  const cells = [
    ...[what, seconds(noticed), said, seconds(back)],
    ...[`${answers}, ${broken}, ${failed}`, left],
    wrong.length > 0 ? wrong.join("; ") : "yes",
  ];
  // A bar would end the cell.
  return `| ${cells.map((cell) => String(cell).replaceAll("|", "/")).join(" | ")} |`;
}
