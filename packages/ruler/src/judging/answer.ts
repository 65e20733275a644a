import { z } from "zod";
import { dataLine } from "../prompt/data-line.ts";
import { repeatedKey } from "./repeated-key.ts";
import { asOneBlock } from "../code-fence.ts";

const answerSchema = z.object({
  scores: z.array(
    z.object({
      id: z.string(),
      explanation: z.string(),
      score: z.number().min(0).max(1),
    }),
  ),
});

/** The same as JSON Schema, for providers that hold their model to one. It never changes, so they cache it. */
export const answerJsonSchema = {
  type: "object",
  properties: {
    scores: {
      type: "array",
      items: {
        type: "object",
        properties: {
          id: { type: "string" },
          explanation: { type: "string" },
          score: { type: "number" },
        },
        required: ["id", "explanation", "score"],
        additionalProperties: false,
      },
    },
  },
  required: ["scores"],
  additionalProperties: false,
} as const;

/**
 * For a judge on our own server, which holds it to any schema at no cost: exactly these ids, in this order,
 * each once. A small model that would never copy them right still judges.
 */
export function boundAnswerSchema(ids: readonly string[]): Record<string, unknown> {
  const entry = answerJsonSchema.properties.scores.items;
  return {
    ...answerJsonSchema,
    properties: {
      scores: {
        type: "array",
        prefixItems: ids.map((id) => ({
          ...entry,
          properties: {
            id: { const: id },
            explanation: { type: "string", maxLength: 400 },
            score: { type: "number", minimum: 0, maximum: 1, multipleOf: 0.01 },
          },
        })),
        items: false,
        minItems: ids.length,
      },
    },
  };
}

export interface AttemptScore {
  score: number;
  explanation: string;
}

export type ReadAnswer =
  | { ok: true; scores: ReadonlyMap<string, AttemptScore> }
  /** What is wrong with it, in words that the judge can act on. */
  | { ok: false; problem: string };

const longest = 1_000_000;

/**
 * Reads a judge's answer. It holds if it names exactly these ids, each once, each with a score
 * from 0 to 1. Nothing is guessed: no order, no default, no clamping.
 */
export function readAnswer(content: string | null, ids: readonly string[]): ReadAnswer {
  if (!content?.trim()) return wrong("The answer was empty.");
  if (content.length > longest) return wrong("The answer was too long.");
  let value: unknown;
  const json = bareJson(content);
  try {
    value = JSON.parse(json);
  } catch {
    return wrong(notJson(content));
  }
  const twiceNamed = repeatedKey(json);
  if (twiceNamed !== null)
    return wrong(`The key ${quoted([twiceNamed.slice(0, 40)])} comes twice in one object.`);
  const parsed = answerSchema.safeParse(value);
  if (!parsed.success) {
    const issues = parsed.error.issues
      .slice(0, 5)
      .map(({ path, message }) => `${path.join(".") || "the answer"}: ${message}`);
    return wrong(`The answer has not the shape that was asked for. ${issues.join("; ")}.`);
  }
  const scores = new Map<string, AttemptScore>();
  const unknown: string[] = [];
  const twice: string[] = [];
  for (const { id, score, explanation } of parsed.data.scores) {
    if (!ids.includes(id)) unknown.push(id.slice(0, 40));
    else if (scores.has(id)) twice.push(id);
    else scores.set(id, { score, explanation });
  }
  const missing = ids.filter((id) => !scores.has(id));
  const problems = [
    ...(unknown.length > 0 ? [`No attempt has the id ${quoted(unknown)}.`] : []),
    ...(twice.length > 0 ? [`More than one entry for ${quoted(twice)}.`] : []),
    ...(missing.length > 0 ? [`No entry for ${quoted(missing)}.`] : []),
  ];
  return problems.length > 0 ? wrong(problems.join(" ")) : { ok: true, scores };
}

function wrong(problem: string): ReadAnswer {
  return { ok: false, problem };
}

function quoted(ids: readonly string[]): string {
  return ids
    .slice(0, 20)
    .map((id) => dataLine(id))
    .join(", ");
}

/** Tags that models put their thoughts between, in their content. */
const thoughtTags = ["think", "thinking", "thought", "thoughts", "reasoning", "reflection"];

/**
 * The JSON of an answer without what models put around it: their thinking before it, a code fence
 * about it. Any other text beside it makes the answer invalid: it might be quoted from an attempt.
 */
function bareJson(content: string): string {
  const answer = behindThoughts(content.trim());
  const block = asOneBlock(answer);
  return block && ["", "json", "jsonc", "json5"].includes(block.language) ? block.code : answer;
}

/**
 * What stands behind the last tag that closes a thought. A template may have opened it in the prompt, so that the
 * answer begins within it: then nothing before the closing tag may look like an answer.
 */
function behindThoughts(text: string): string {
  for (const tag of thoughtTags) {
    const close = `</${tag}>`;
    const end = text.lastIndexOf(close);
    if (end < 0) continue;
    // An explanation in the JSON may quote the tag.
    const first = text.slice(text.indexOf(close) + close.length).trim();
    if (text.startsWith(`<${tag}>`) && /^[{`]/.test(first)) return first;
    const before = text.slice(0, end).trimStart();
    if (before.startsWith(`<${tag}>`) || !/^[[{`]/.test(before))
      return text.slice(end + close.length).trim();
  }
  return text;
}

/** Why a text is not one JSON object, in words that help. */
function notJson(content: string): string {
  const text = content.trim();
  const opened = thoughtTags.find((tag) => text.startsWith(`<${tag}>`));
  if (opened && !text.includes(`</${opened}>`)) {
    return "The answer is a thought that was not finished: think less, or raise max_tokens.";
  }
  if (!text.includes("{")) return "The answer was text without a JSON object.";
  return "The answer was not one JSON object and nothing else.";
}

/** What the judge is told when its answer does not hold. */
export function repairRequest(problem: string, ids: readonly string[]): string {
  return `Your answer cannot be used. ${problem} Answer again with one JSON object {"scores": [{"id", "explanation", "score"}]} and nothing else: exactly one entry for each of ${[...ids].sort().join(", ")}, each score a number from 0 to 1.`;
}
