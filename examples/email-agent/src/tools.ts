import type OpenAI from "openai";
import { z } from "zod";
import type { Mailbox } from "./mailbox.ts";

/** The search would take a NUL for its end. */
const keyword = z
  .string()
  .min(1)
  .refine((text) => !text.includes("\0"), "it holds a NUL");

const schemas = {
  search_emails: z.strictObject({
    keywords: z.array(keyword).min(1),
    from_addr: z.string().optional(),
    to_addr: z.string().optional(),
    sent_after: z.string().optional(),
    sent_before: z.string().optional(),
    max_results: z.int().min(1).max(10).optional(),
  }),
  read_email: z.strictObject({ message_id: z.string() }),
  return_final_answer: z.strictObject({ answer: z.string(), sources: z.array(z.string()) }),
};

const descriptions: Record<keyof typeof schemas, string> = {
  search_emails:
    "Finds mails that hold all keywords, newest first. Days are YYYY-MM-DD. At most 10 results.",
  read_email: "Gives a whole mail.",
  return_final_answer:
    'Ends the task: the answer, or "I don\'t know", and the ids of the mails that say so.',
};

export const tools: OpenAI.ChatCompletionFunctionTool[] = Object.entries(schemas).map(
  ([name, schema]) => {
    const { $schema: _, ...parameters } = z.toJSONSchema(schema);
    const description = descriptions[name as keyof typeof schemas];
    return { type: "function", function: { name, description, parameters } };
  },
);

/** What a call did. A bad one says why, as the tool's answer. */
export type Outcome =
  | { kind: "found"; ids: string[]; text: string }
  | { kind: "read"; id: string; found: boolean; text: string }
  | { kind: "answer"; answer: string; sources: string[] }
  | { kind: "bad_tool"; text: string }
  | { kind: "bad_arguments"; text: string };

export function callTool(mailbox: Mailbox, name: string, given: string): Outcome {
  if (!Object.hasOwn(schemas, name)) return bad("bad_tool", `There is no tool ${name}.`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(given);
  } catch {
    return bad("bad_arguments", "The arguments are no JSON.");
  }
  if (name === "search_emails") {
    const read = schemas.search_emails.safeParse(parsed);
    if (!read.success) return bad("bad_arguments", z.prettifyError(read.error));
    const asked = read.data;
    const hits = mailbox.search({
      ...{ keywords: asked.keywords, from: asked.from_addr, to: asked.to_addr },
      ...{ sentAfter: asked.sent_after, sentBefore: asked.sent_before, limit: asked.max_results },
    });
    const text = JSON.stringify(hits.map(({ id, snippet }) => ({ message_id: id, snippet })));
    return { kind: "found", ids: hits.map(({ id }) => id), text };
  }
  if (name === "read_email") {
    const read = schemas.read_email.safeParse(parsed);
    if (!read.success) return bad("bad_arguments", z.prettifyError(read.error));
    const mail = mailbox.read(read.data.message_id);
    const text = mail === null ? '{"error":"There is no such mail."}' : JSON.stringify(mail);
    return { kind: "read", id: read.data.message_id, found: mail !== null, text };
  }
  const read = schemas.return_final_answer.safeParse(parsed);
  return read.success
    ? { kind: "answer", ...read.data }
    : bad("bad_arguments", z.prettifyError(read.error));
}

function bad(kind: "bad_tool" | "bad_arguments", text: string): Outcome {
  return { kind, text: JSON.stringify({ error: text }) };
}
