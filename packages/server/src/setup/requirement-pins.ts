import { readFileSync } from "node:fs";

/** `name==version` of each package that a file of requirements pins, without hashes and marks. */
export function pinsIn(file: string): string[] {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.flatMap((line) => /^[\w.-]+==[^\s;\\]+/.exec(line)?.[0] ?? []);
}
