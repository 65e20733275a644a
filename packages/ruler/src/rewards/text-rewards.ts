import { z } from "zod";
import { completionText, fencedCode, taggedAnswer } from "./completion-text.ts";
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

/** The last number of a text: `1,234.50`, `-3`, `2e5`. Null where there is none. */
export function lastNumber(text: string): number | null {
  const found = text.match(
    /(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|(?<![\w.])[-+]?\.\d+/g,
  );
  const last = found?.at(-1);
  if (last === undefined) return null;
  const value = Number(last.replaceAll(",", ""));
  return Number.isFinite(value) ? value : null;
}

export type JsonSchema = Parameters<typeof z.fromJSONSchema>[0];

/**
 * 1 where the answer is JSON that the schema accepts, else 0. The answer may stand in a code fence; any
 * other text beside it makes it no JSON. A schema is zod's or JSON Schema.
 */
export function jsonMatch(options: { schema: z.ZodType | JsonSchema }): RewardFunction {
  const schema =
    options.schema instanceof z.ZodType ? options.schema : z.fromJSONSchema(options.schema);
  return named("json_match", (trajectory) => {
    const text = completionText(trajectory).trim();
    let value: unknown;
    try {
      value = JSON.parse(/^(```|~~~)/.test(text) ? (fencedCode(text) ?? text) : text);
    } catch {
      return 0;
    }
    return schema.safeParse(value).success ? 1 : 0;
  });
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
