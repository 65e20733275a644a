import { add, compare, divide, fraction, fromNumber, multiply, negate } from "./fraction.ts";
import type { Fraction } from "./fraction.ts";

/*
 * One reader for numbers as people and models write them. It is exact, it takes linear time, and what may be two
 * numbers is none: an answer that could mean something else earns nothing.
 */

/** Digits of a number at most: doubles end at 309, and longer ones cost more than they can be worth. */
const mostDigits = 400;

/** Every dash that is written for a minus; the em dash is punctuation. */
const minus = "-\u2010\u2011\u2012\u2013\u2212\uFE58\uFE63\uFF0D";
/** Spaces that group digits and do not end a line or a word. */
const groupSpaces = "\u00A0\u2002-\u200A\u202F\u205F\u3000";
const grouping = `'\u2019\u02BC_${groupSpaces}`;

/**
 * Digits with whatever may stand between two of them, or a decimal point before the first; behind them an exponent.
 * Each character fits one place of the pattern only.
 */
const core = `(?:\\d|\\.(?=\\d))(?:\\d|[.,/:^${grouping} ](?=\\d))*`;
const power =
  "[eE]([-+]?\\d{1,3})(?!\\d)|\\s?(?:\u00D7|\u00B7|\\*|x|X|\\\\times|\\\\cdot)\\s?10(?:\\^\\{?([-+]?\\d{1,3})\\}?|([\u2070\u00B9\u00B2\u00B3\u2074-\u2079\u207A\u207B]{1,4}))";
const bodies = new RegExp(`(${core})(?:${power})?`, "gu");

/**
 * The last number of a text: `1,234.50`, `1.234,50`, `1 234`, `12,34,567`, `-$3`, `2 2/3`, `½`, `2e5`, `3 × 10^4`,
 * `5 million`. Null where there is none, and where the last one can be read in two ways or belongs to something
 * that is no number: an operand (`8 - 3`), a range, a date, a time, a power, a version, a word.
 *
 * A single comma or dot before three digits is read as in English: `1,234` is 1234, `1.234` is 1.234.
 */
export function lastNumber(text: string): Fraction | null {
  const plain = normalised(text);
  let last: RegExpExecArray | null = null;
  for (const found of plain.matchAll(bodies)) last = found;
  return last ? numberAt(plain, last) : null;
}

/** The whole text as one number, for what a task gives as text. Null where it is anything else. */
export function numberFromText(text: string): Fraction | null {
  const plain = normalised(text).trim();
  const [, sign = "", body = "", exponent] =
    /^([-+]?)\p{Sc}?([\d.][^eE]*)(?:[eE]([-+]?\d{1,3}))?$/u.exec(plain) ?? [];
  const read = isBody(body) ? readBody(body) : null;
  if (!read?.isFirst) return null;
  const value = exponent === undefined ? read.value : scaled(read.value, Number(exponent));
  return sign === "-" ? negate(value) : value;
}

/** A number that a task gives, as it is or as text. Null where it is none. */
export function exactNumber(given: number | string): Fraction | null {
  if (typeof given === "string") return numberFromText(given);
  // As it is written: 0.1 is a tenth here, and not the double beside it.
  return Number.isFinite(given) ? numberFromText(String(given)) : null;
}

export function isNear(a: Fraction, b: Fraction, tolerance: number): boolean {
  const difference = add(a, negate(b));
  const size = difference.top < 0n ? negate(difference) : difference;
  return compare(size, fromNumber(tolerance)) <= 0;
}

function isBody(text: string): boolean {
  const [found] = text.matchAll(bodies);
  return found?.[1] === text;
}

/** In ASCII as far as it matters: digits of all scripts, one minus, fractions as `1/2`, LaTeX without its dress. */
function normalised(text: string): string {
  return (
    text
      .replaceAll(/\p{Nd}/gu, digitOf)
      .replaceAll(
        /(?<=(\d?)) ?[\u00BC-\u00BE\u2150-\u215E\u2189]/gu,
        (one, digit: string) =>
          // Of `2½` the whole number stays apart; of `-½` the sign does not.
          (digit || one.startsWith(" ") ? " " : "") + one.trim().normalize("NFKC"),
      )
      .replaceAll(
        /(?<=(\d?))\\[dt]?frac\s?(?:\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}|(\d)\s?(\d))/g,
        fracOf,
      )
      .replaceAll("{,}", ",")
      .replaceAll(/(?<=\d)\\[,;: ](?=\d)/g, "\u2009")
      .replaceAll(/\\(?=[$%])/g, "")
      .replaceAll("\u2044", "/")
      .replaceAll("\uFF0E", ".")
      .replaceAll("\uFF0C", ",")
      .replaceAll("\uFF0B", "+")
      .replaceAll("\u066B", ".")
      .replaceAll("\u066C", "\u2009")
      .replaceAll(new RegExp(`[${minus.replace("-", "")}]`, "gu"), "-")
      // Nobody sees these: marks of direction, soft hyphens, joiners, spaces of no width.
      .replaceAll(/\p{Cf}/gu, "")
  );
}

function fracOf(
  _all: string,
  before: string,
  top: string | undefined,
  bottom: string | undefined,
  digit: string | undefined,
  other: string | undefined,
): string {
  return `${before ? " " : ""}${top ?? digit}/${bottom ?? other}`;
}

/** Unicode has the digits of a script in a row, from zero to nine. */
function digitOf(digit: string): string {
  const code = digit.codePointAt(0) as number;
  if (code < 128) return digit;
  let first = code;
  while (/^\p{Nd}$/u.test(String.fromCodePoint(first - 1))) first -= 1;
  return String((code - first) % 10);
}

function numberAt(text: string, found: RegExpExecArray): Fraction | null {
  const [whole, body = "", written, byTen, raised] = found;
  const from = found.index;
  const exponent = Number(written ?? byTen ?? (raised ? superscript(raised) : 0));
  if (!Number.isInteger(exponent) || Math.abs(exponent) > 308) return null;
  const read = readBody(body);
  const times = timesBehind(text.slice(from + whole.length, from + whole.length + 40));
  if (!read || times === null) return null;
  // A number within a list, such as the 3 of `1,2,3`, has no sign and no word before it.
  if (/^000(?!\d)/.test(body) && /\d,\s$/.test(text.slice(Math.max(0, from - 3), from)))
    return null;
  const sign = read.isFirst ? signBefore(text.slice(Math.max(0, from - 40), from)) : 1;
  if (sign === null) return null;
  const value = multiply(scaled(read.value, exponent), fraction(BigInt(times)));
  if (value.top.toString().length > mostDigits) return null;
  return sign < 0 ? negate(value) : value;
}

/** What stands before the number: 1, -1, or null where it makes it something else. */
function signBefore(before: string): 1 | -1 | null {
  // `-$5`, `$-5`, `- € 5` and `-USD 5`: the sign may stand on either side of the currency.
  const [written = "", outer = "", money = "", inner = "", bare = ""] = prefix.exec(before) ?? [];
  const signs = outer + inner + bare;
  const start = before.slice(0, before.length - written.length);
  if (signs.length > 1) return null;
  // Accountants write a loss as ($5).
  if (money && /\(\s*$/.test(start)) return null;
  // Within a word, behind a point, under a root, behind an operator without spaces.
  if (/(?:[\p{L}\p{N}\p{M}_.\u00B1\u2213\u221A\u00D7\u00F7/^]|\\[a-z]*sqrt\s*\{?)$/u.test(start)) {
    return null;
  }
  // An accent for a group of digits: 1´234.
  if (/\p{N}[\u00B4`\u2032]$/u.test(start)) return null;
  // `5 x 3`, `5 : 1`, `5 ± 1`.
  if (/\p{N}\s+(?:[xX:\u00B1\u2213]|\\times|\\cdot|\\pm)\s+$/u.test(start)) return null;
  // Stars may also be Markdown's.
  if (/[^\s*(:=]\*+$/.test(start)) return null;
  const isBehindValue = /[\p{L}\p{N})\]}]\s+$/u.test(start);
  if (signs !== "") {
    // `10 -4` may be a list or an operation; of `is -4` there is no doubt.
    if (/[\p{N})\]}]\s+$/u.test(start)) return null;
    return signs === "-" ? -1 : 1;
  }
  // `8 * 3` is an operation. `total - 5`, and a list's `- 5`, may be a dash or a minus.
  // So do stars, behind a word that they make bold. No operation goes on over the end of a line.
  const [, operator = ""] =
    /((?<=[\s\p{N})\]}])\*\*?|[-+/\u00D7\u00F7\u00B7^])[^\S\n]+$/u.exec(start) ?? [];
  if (operator !== "") {
    const left = start.slice(0, start.lastIndexOf(operator));
    if (operator === "-") return /[=:(,[]\s*$/.test(left) ? -1 : null;
    return /[\p{L}\p{N})\]}]\s*$/u.test(left) ? null : 1;
  }
  return isBehindValue && /\b(?:minus|negative)\s+$/i.test(start) ? -1 : 1;
}

const prefix =
  /(?:([-+]+)\s?)?(\p{Sc}|\b(?:USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD|BRL|MXN|KRW|RUB|SEK|NOK|DKK|PLN))\s?([-+]*)$|([-+]+)$/u;

const words: Readonly<Record<string, number>> = {
  dozen: 12,
  hundred: 100,
  thousand: 1_000,
  lakh: 100_000,
  million: 1_000_000,
  crore: 10_000_000,
  billion: 1_000_000_000,
  trillion: 1_000_000_000_000,
};

/** What a word behind the number makes of it; null where what follows makes it something else. */
function timesBehind(rest: string): number | null {
  // Powers, factors, roots, an unfinished operation, a trailing minus, hexadecimals.
  if (/^[\u00B2\u00B3\u00B9\u2070\u2074-\u2079\u207A\u207B^\u221A\u03C0\u221E]/u.test(rest))
    return null;
  if (/^\s?\\(?:pi|sqrt|infty)\b/.test(rest) || /^[xX][0-9a-fA-F]/.test(rest)) return null;
  const operation =
    /^(?:[+*\u00D7\u00F7\u00B7]|-(?=\d)|\s+[+*/\u00D7\u00F7\u00B7]\s+)(?=[\p{L}\p{N}(\\])/u;
  if (operation.test(rest) || /^-(?:\s|$)/.test(rest)) return null;
  // Of 5k and 5M nobody knows whether they are thousands, kelvins or megabytes.
  if (/^(?:[kKMB]|bn|mn)(?![\p{L}\p{N}])/u.test(rest)) return null;
  const word = /^[\s-]?([a-z]+)\b/i.exec(rest)?.[1]?.toLowerCase() ?? "";
  return Object.hasOwn(words, word) ? (words[word] as number) : 1;
}

function superscript(text: string): number {
  return Number(text.normalize("NFKC").replace("\u2212", "-"));
}

interface Read {
  value: Fraction;
  /** It begins where the body begins: a sign before it is its own. */
  isFirst: boolean;
}

/** Digits and what stands between them. Spaces part numbers, group digits, or join a whole one and a fraction. */
function readBody(body: string): Read | null {
  if (/[:^]/.test(body)) return null;
  const parts = body.split(" ");
  const last = parts.at(-1) as string;
  if (last.includes("/")) return readFraction(parts, last);
  const { from, text } = spaceGroups(parts);
  // `1 234` with one kind of space and `567` behind another: one number or two.
  const isMixed = new RegExp(`[${groupSpaces}]`, "u").test(last);
  if (isMixed && from > 0 && /^\d{1,3}$/.test(parts[from - 1] as string)) return null;
  const read = readPlain(text);
  return read && { ...read, isFirst: read.isFirst && from === 0 };
}

/** `1/2`, and with a whole number before it `2 1/2`. */
function readFraction(parts: readonly string[], last: string): Read | null {
  const [top, bottom, more] = last.split("/");
  const above = top ? readPlain(top) : null;
  const below = bottom && /^\d+$/.test(bottom) ? readPlain(bottom) : null;
  if (more !== undefined || !above?.isFirst || !below || below.value.top === 0n) return null;
  const value = divide(above.value, below.value);
  const before = parts.at(-2);
  if (before === undefined) return { value, isFirst: true };
  if (before.includes("/")) return { value, isFirst: false };
  const { from, text } = spaceGroups(parts.slice(0, -1));
  const whole = /^\d+$/.test(text) ? readPlain(text) : null;
  // `7 3/2` is no mixed number: nobody can say whether it is one number or two.
  if (!whole || value.top >= value.bottom || !/^\d+$/.test(top ?? "")) return null;
  return { value: add(whole.value, value), isFirst: from === 0 };
}

/** The last number of parts between which spaces stand, without those that group it: `1 234 567`. */
function spaceGroups(parts: readonly string[]): { from: number; text: string } {
  let from = parts.length - 1;
  const isLast = /^\d{3}(?:[.,]\d+)?$/.test(parts[from] as string);
  if (!isLast) return { from, text: parts[from] as string };
  let first = from;
  while (first > 0 && /^\d{3}$/.test(parts[first - 1] as string)) first -= 1;
  if (first > 0 && /^[1-9]\d?$/.test(parts[first - 1] as string)) first -= 1;
  if (first === from || !/^[1-9]/.test(parts[first] as string))
    return { from, text: parts[from] as string };
  from = first;
  // The same as a space that means nothing else.
  return { from, text: parts.slice(from).join("\u2009") };
}

/** Digits with commas, dots and the like; no spaces. */
function readPlain(text: string): Read | null {
  const odd = new RegExp(`[${grouping}]`, "u").exec(text)?.[0];
  const dots = count(text, ".");
  const commas = count(text, ",");
  let whole = text;
  let decimals = "";
  if (odd !== undefined) {
    // Grouped by that, so that a dot or a comma can only be the decimal one.
    if (dots + commas > 1) return null;
    [whole = "", decimals = ""] = text.split(/[.,]/);
    const groups = whole.split(odd);
    if (odd !== "_" && !isGrouped(groups)) return null;
    if (groups.some((group) => !/^\d+$/.test(group)) || !/^\d*$/.test(decimals)) return null;
    whole = groups.join("");
  } else if (dots > 0 && commas > 0) {
    const decimal = text.lastIndexOf(".") > text.lastIndexOf(",") ? "." : ",";
    if (count(text, decimal) > 1) return null;
    [whole = "", decimals = ""] = text.split(decimal);
    const groups = whole.split(decimal === "." ? "," : ".");
    if (!isGrouped(groups) && !(decimal === "." && isIndian(groups))) return null;
    whole = groups.join("");
  } else if (dots === 1) {
    [whole = "", decimals = ""] = text.split(".");
  } else if (dots > 1) {
    if (!isGrouped(text.split("."))) return null;
    whole = text.replaceAll(".", "");
  } else if (commas > 0) {
    return readCommas(text.split(","));
  }
  return exact(whole, decimals);
}

/** English and Indian groups; else a list, if there are enough commas for one: one alone may be a decimal comma. */
function readCommas(groups: readonly string[]): Read | null {
  if (isGrouped(groups) || isIndian(groups)) return exact(groups.join(""), "");
  if (groups.length === 2) return null;
  // `1,234,56` may be a list, or a decimal comma behind groups.
  if (groups.at(-1)?.length !== 3 && isGrouped(groups.slice(0, -1))) return null;
  let from = groups.length - 1;
  while (from > 0 && groups[from]?.length === 3) from -= 1;
  const isAlone = from === groups.length - 1;
  if (!isAlone && (groups[from]?.length ?? 0) > 3) from += 1;
  const read = exact(groups.slice(from).join(""), "");
  return read && { ...read, isFirst: from === 0 };
}

function exact(whole: string, decimals: string): Read | null {
  if (whole.length + decimals.length > mostDigits || whole + decimals === "") return null;
  const top = BigInt(whole + decimals);
  return { value: fraction(top, 10n ** BigInt(decimals.length)), isFirst: true };
}

function isGrouped([first = "", ...rest]: readonly string[]): boolean {
  return rest.length > 0 && /^[1-9]\d{0,2}$/.test(first) && rest.every((g) => /^\d{3}$/.test(g));
}

/** 12,34,567 */
function isIndian(groups: readonly string[]): boolean {
  const [first = "", ...rest] = groups;
  const last = rest.pop();
  return (
    last !== undefined &&
    rest.length > 0 &&
    /^[1-9]\d?$/.test(first) &&
    /^\d{3}$/.test(last) &&
    rest.every((group) => /^\d{2}$/.test(group))
  );
}

function scaled(value: Fraction, exponent: number): Fraction {
  const size = fraction(10n ** BigInt(Math.abs(exponent)));
  return exponent < 0 ? divide(value, size) : multiply(value, size);
}

function count(text: string, char: string): number {
  return text.split(char).length - 1;
}
