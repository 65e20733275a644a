import { HoneError } from "./errors.ts";
import { kindOf } from "./known-options.ts";

/** What a number may be: at least `least`, above `above`, at most `most`. It is always finite. */
export interface NumberRange {
  whole?: boolean | undefined;
  least?: number | undefined;
  above?: number | undefined;
  most?: number | undefined;
}

/** Gives the value of an option back, or says by the option's name what it may be. */
export function requireNumber(name: string, value: unknown, range: NumberRange): number {
  if (isWithin(value, range)) return value;
  const given = typeof value === "number" ? value : kindOf(value);
  throw new HoneError(`${name} must be ${rangeText(range)}, not ${given}.`, {
    code: "invalid_config",
    param: name,
  });
}

/**
 * Reads numbers of a command line. `Refusal` is the error that its parser expects. The empty text, which a shell
 * makes of an unset variable, is no zero.
 */
export function numberReader(
  range: NumberRange,
  Refusal: new (message: string) => Error,
): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (isWithin(value, range)) return value;
    throw new Refusal(`It must be ${rangeText(range)}.`);
  };
}

function isWithin(value: unknown, range: NumberRange): value is number {
  const { whole = false, least = -Infinity, above = -Infinity, most = Infinity } = range;
  const isOne = whole ? Number.isSafeInteger(value) : Number.isFinite(value);
  const number = value as number;
  return isOne && number >= least && number > above && number <= most;
}

function rangeText({ whole = false, least, above, most }: NumberRange): string {
  const number = whole ? "a whole number" : "a number";
  if (least !== undefined && most !== undefined) return `${number} from ${least} to ${most}`;
  const bounds = [
    least === undefined ? "" : `of at least ${least}`,
    above === undefined ? "" : `above ${above}`,
    most === undefined ? "" : `at most ${most}`,
  ].filter(Boolean);
  return [number, bounds.join(" and ")].filter(Boolean).join(" ");
}
