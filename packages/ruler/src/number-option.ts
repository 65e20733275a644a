import { HoneError } from "@hone/core";

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
