import { HoneError } from "@hone/core";

/** Options are checked by name at run time too: a misspelt one must not be ignored in silence. */
export function refuseUnknownOptions(
  where: string,
  options: object,
  known: readonly string[],
): void {
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw new HoneError(`${where} has no option "${key}". It knows: ${known.join(", ")}.`, {
      code: "unsupported_parameter",
      param: key,
    });
  }
}

export function requireNumber(
  name: string,
  value: number,
  range: { least: number; whole?: boolean },
): number {
  const fits = range.whole ? Number.isSafeInteger(value) : Number.isFinite(value);
  if (fits && value >= range.least) return value;
  throw new HoneError(
    `${name} must be a ${range.whole ? "whole " : ""}number of at least ${range.least}, not ${value}.`,
    { code: "invalid_config", param: name },
  );
}
