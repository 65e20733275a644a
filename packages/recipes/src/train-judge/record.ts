import {
  HoneError,
  issueText,
  messageSchema,
  messageText,
  type AssistantMessage,
  type ChatMessage,
} from "@hone/core";
import { z } from "zod";

/** Which of two answers is the better one. */
export type Preference = "A" | "B" | "tie";

/** One line of labelled data: a conversation, answers to it, and what people or another judge said of them. */
export interface JudgeRecord {
  /** Where it stands: `data.jsonl:17`, or `data.parquet:row 17`. */
  place: string;
  input: readonly ChatMessage[];
  answers: readonly { content: string; helpfulness: number | null }[];
  /** A is the first answer. Null where nobody compared them. */
  preference: Preference | null;
}

/** OpenJudge's label of an answer. Keys that nothing here reads are allowed: data sets have many. */
const labelSchema = z.looseObject({
  helpfulness: z
    .int({ error: "is a whole number from 0 to 4" })
    .min(0, "is a whole number from 0 to 4")
    .max(4, "is a whole number from 0 to 4")
    .nullish(),
  preference: z.enum(["A", "B", "tie"]).nullish(),
});

const recordSchema = z.looseObject({
  input: z.array(messageSchema).min(1, "has no message"),
  output: z
    .array(
      z.looseObject({
        answer: z.looseObject({
          role: z.literal("assistant").nullish(),
          content: z.string(),
          label: labelSchema.nullish(),
        }),
      }),
    )
    .min(1, "has no answer"),
});

/** The other form of its Bradley-Terry data: whole conversations, as lists or as JSON texts of lists. */
const pairSchema = z.looseObject({ chosen: z.unknown(), rejected: z.unknown() });
const messagesSchema = z.array(messageSchema).min(2, "has a prompt and an answer");

/** Checks one line; throws with its place and what is wrong with it. */
export function readRecord(value: unknown, place: string): JudgeRecord {
  const pair = pairSchema.safeParse(value);
  if (pair.success && "chosen" in pair.data && "rejected" in pair.data) {
    return ofPair(pair.data, place);
  }
  const parsed = recordSchema.safeParse(value);
  if (!parsed.success) throw unusable(place, issueText(parsed.error, "it"), parsed.error);
  const answers = parsed.data.output.map(({ answer }) => answer);
  const labels = new Set(answers.flatMap(({ label }) => label?.preference ?? []));
  if (labels.size > 1) {
    throw unusable(place, `its answers have different preferences (${[...labels].join(", ")})`);
  }
  return {
    place,
    input: parsed.data.input,
    answers: answers.map(({ content, label }) => ({
      content,
      helpfulness: label?.helpfulness ?? null,
    })),
    preference: [...labels][0] ?? null,
  };
}

function ofPair(given: { chosen: unknown; rejected: unknown }, place: string): JudgeRecord {
  const [chosen, rejected] = (["chosen", "rejected"] as const).map((side) => {
    const parsed = messagesSchema.safeParse(fromText(given[side], `${place}, ${side}`));
    if (!parsed.success) throw unusable(place, `${side}: ${issueText(parsed.error, "it")}`);
    const last = parsed.data.at(-1);
    if (last?.role === "assistant") return { prompt: parsed.data.slice(0, -1), last };
    throw unusable(place, `${side} does not end with an assistant message`);
  }) as [Side, Side];
  if (JSON.stringify(chosen.prompt) !== JSON.stringify(rejected.prompt)) {
    throw unusable(place, "chosen and rejected differ before their last message");
  }
  const answers = [chosen, rejected].map(({ last }) => ({
    content: messageText(last),
    helpfulness: null,
  }));
  return { place, input: chosen.prompt, answers, preference: "A" };
}

interface Side {
  prompt: ChatMessage[];
  last: AssistantMessage;
}

function fromText(value: unknown, place: string): unknown {
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(value);
  } catch (cause) {
    throw unusable(place, `its text is not JSON: ${(cause as Error).message}`, cause);
  }
}

export function unusable(place: string, why: string, cause?: unknown): HoneError {
  return new HoneError(`${place} cannot be learnt from: ${why}. Mend it, or leave it out.`, {
    ...{ code: "invalid_request", param: place, cause },
  });
}

/** The same record as a line of OpenJudge's schema. */
export function writtenRecord(record: Omit<JudgeRecord, "place">, source?: string): object {
  const { input, answers, preference } = record;
  return {
    input,
    output: answers.map(({ content, helpfulness }) => ({
      answer: {
        ...{ role: "assistant", content },
        label: {
          ...(helpfulness !== null && { helpfulness }),
          ...(preference !== null && { preference }),
        },
      },
    })),
    ...(source !== undefined && { source }),
  };
}
