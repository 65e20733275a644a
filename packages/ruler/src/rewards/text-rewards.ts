import type { z } from "zod";
import { asOneBlock } from "../code-fence.ts";
import { completionText, taggedAnswer } from "./completion-text.ts";
import { jsonSchemaCheck } from "./json-schema.ts";
import type { JsonSchema } from "./json-schema.ts";
import { named } from "./reward-function.ts";
import type { Reader, RewardFunction } from "./reward-function.ts";

/** 1 where the answer is the expected text (trimmed, or made comparable by `normalize`), else 0. */
export function exactMatch(options: {
  expected: Reader<string>;
  /** The part of the answer that counts. @default what stands in `<answer>`, else all of it */
  extract?: ((text: string) => string | null) | undefined;
  normalize?: ((text: string) => string) | undefined;
}): RewardFunction {
  const { normalize = (text) => text.trim(), extract = answerOrAll } = options;
  return named("exact_match", (trajectory, context) => {
    const expected = options.expected(trajectory, context);
    if (expected === null || expected === undefined) return null;
    const answer = extract(completionText(trajectory));
    return answer !== null && normalize(answer) === normalize(expected) ? 1 : 0;
  });
}

/** 1 where the answer's last number is the expected one within the tolerance, else 0. */
export function numericMatch(options: {
  expected: Reader<number>;
  /** Absolute. @default 1e-6 */
  tolerance?: number | undefined;
  extract?: ((text: string) => string | null) | undefined;
}): RewardFunction {
  const { tolerance = 1e-6, extract = answerOrAll } = options;
  return named("numeric_match", (trajectory, context) => {
    const expected = options.expected(trajectory, context);
    if (expected === null || expected === undefined) return null;
    // NaN is no number to compare with: combineRewards refuses it by this function's name.
    if (!Number.isFinite(expected)) return Number.NaN;
    const answer = extract(completionText(trajectory));
    const value = answer === null ? null : lastNumber(answer);
    return value !== null && Math.abs(value - expected) <= tolerance ? 1 : 0;
  });
}

// Nothing can fail behind the first digit: no text makes the search go back.
const numbers = /(?<![\w.])([-+]?)(?:(\d+(?:,\d+)*)((?:\.\d+)?(?:[eE][-+]?\d{1,3})?)|(\.\d+))/g;

/** The last number of a text: `1,234.50`, `-3`, `2e5`. Null where there is none. */
export function lastNumber(text: string): number | null {
  let last: RegExpExecArray | null = null;
  for (const found of text.matchAll(numbers)) last = found;
  if (!last) return null;
  const [, sign = "", whole, rest = "", fraction = ""] = last;
  const { digits, isFirst } = whole ? lastGrouped(whole) : { digits: fraction, isFirst: true };
  const value = Number((isFirst ? sign : "") + digits + rest);
  return Number.isFinite(value) ? value : null;
}

/** Of `1,2,345` the last number, `2,345`: groups of three behind a group of at most three. */
function lastGrouped(list: string): { digits: string; isFirst: boolean } {
  const parts = list.split(",");
  let from = parts.length - 1;
  while (from > 0 && parts[from]?.length === 3) from -= 1;
  const isAlone = from === parts.length - 1;
  if (!isAlone && (parts[from]?.length ?? 0) > 3) from += 1;
  return { digits: parts.slice(from).join(""), isFirst: from === 0 };
}

/**
 * 1 where the answer is JSON that the schema accepts, else 0. The answer may stand in a code fence; any
 * other text beside it makes it no JSON. A schema is zod's or JSON Schema; one that is neither is refused here,
 * and not when an answer is scored.
 */
export function jsonMatch(options: { schema: z.ZodType | JsonSchema }): RewardFunction {
  const { schema } = options;
  const accepts = isZod(schema)
    ? (value: unknown) => schema.safeParse(value).success
    : jsonSchemaCheck(schema);
  return named("json_match", (trajectory) => {
    const text = completionText(trajectory).trim();
    let value: unknown;
    try {
      value = JSON.parse(asOneBlock(text)?.code ?? text);
    } catch {
      return 0;
    }
    try {
      return accepts(value) ? 1 : 0;
    } catch (error) {
      // Nested deeper than the stack.
      if (error instanceof RangeError) return 0;
      throw error;
    }
  });
}

function isZod(schema: z.ZodType | JsonSchema): schema is z.ZodType {
  return typeof schema === "object" && schema !== null && "safeParse" in schema;
}

/**
 * 0 up to `maxTokens - softTokens` completion tokens, from there down to -1 at `maxTokens`, and -1
 * beyond: TRL's soft overlong punishment (DAPO, equation 13) over the tokens of the whole episode.
 */
export function lengthPenalty(options: {
  maxTokens: number;
  softTokens: number;
  /** @default the completion tokens that the server counted */
  length?: Reader<number> | undefined;
}): RewardFunction {
  const { maxTokens, softTokens } = options;
  const lengthOf: Reader<number> =
    options.length ?? (({ usage }) => (usage.completions > 0 ? usage.completionTokens : null));
  return named("length_penalty", (trajectory, context) => {
    const length = lengthOf(trajectory, context);
    if (length === null || length === undefined) return null;
    if (length <= maxTokens - softTokens) return 0;
    return length <= maxTokens ? (maxTokens - softTokens - length) / softTokens : -1;
  });
}

function answerOrAll(text: string): string {
  return taggedAnswer(text) ?? text;
}
