import { requireNumber } from "@hone/core";
import type { z } from "zod";
import { asOneBlock } from "../code-fence.ts";
import { completionText, taggedAnswer } from "./completion-text.ts";
import { jsonSchemaCheck } from "./json-schema.ts";
import type { JsonSchema } from "./json-schema.ts";
import { exactNumber, isNear, lastNumber } from "./number-text.ts";
import { named } from "./reward-function.ts";
import type { Reader, RewardFunction } from "./reward-function.ts";

/** 1 if the answer is the expected text (trimmed, or made comparable by `normalize`), else 0. */
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

/**
 * 1 if the answer's last number is the expected one within the tolerance, else 0. A number that can be read in two
 * ways matches nothing; see `lastNumber`.
 */
export function numericMatch(options: {
  /** A number, also as text: "15", "1,234.5", "2/3". */
  expected: Reader<number | string>;
  /** Absolute. @default 1e-6 */
  tolerance?: number | undefined;
  extract?: ((text: string) => string | null) | undefined;
}): RewardFunction {
  const { extract = answerOrAll } = options;
  const tolerance = requireNumber("tolerance", options.tolerance ?? 1e-6, { least: 0 });
  return named("numeric_match", (trajectory, context) => {
    const expected = options.expected(trajectory, context);
    if (expected === null || expected === undefined) return null;
    const wanted = exactNumber(expected);
    // NaN is no number to compare with: combineRewards refuses it by this function's name.
    if (wanted === null) return Number.NaN;
    const answer = extract(completionText(trajectory));
    const value = answer === null ? null : lastNumber(answer);
    return value !== null && isNear(value, wanted, tolerance) ? 1 : 0;
  });
}

/**
 * 1 if the answer is JSON that the schema accepts, else 0. The answer may stand in a code fence, but any other text
 * beside it counts as no JSON. The schema is zod's or a JSON Schema. Anything else is refused at once, and not only
 * when an answer is scored.
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
 * TRL's soft overlong punishment (DAPO, equation 13) over the tokens of the whole episode: 0 up to
 * `maxTokens - softTokens` completion tokens, from there down to -1 at `maxTokens`, and -1 beyond.
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
