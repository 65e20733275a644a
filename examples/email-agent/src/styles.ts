import type { SftExample } from "@hone/client";
import { opening } from "./agent.ts";
import type { Inbox, Question } from "./corpus.ts";
import type { Mailbox } from "./mailbox.ts";
import type { Episode } from "./gold.ts";
import { chance, pick, type Random } from "./random.ts";
import { callTool, tools } from "./tools.ts";

/** How a scripted player searches, which hit it reads, and what it cites. */
export interface Style {
  keywords: "both" | "project" | "attribute";
  reads: "newest" | "newest that is no reply" | "oldest" | "none";
  cites: boolean;
}

/** Nothing that a player knows but the question and what tools gave: the best way to find the answer. */
export const expert: Style = { keywords: "both", reads: "newest that is no reply", cites: true };

/** What the base learns from: all ways, most of them bad. */
export function someStyle(random: Random): Style {
  return {
    keywords: pick(random, ["both", "both", "project", "attribute"] as const),
    reads: pick(random, [
      ...(["newest", "newest that is no reply", "oldest", "oldest", "none"] as const),
    ]),
    cites: chance(random, 0.6),
  };
}

/** A whole conversation, in the format of chat completions. */
export function play(
  style: Style,
  { inbox, mailbox, question }: { inbox: Inbox; mailbox: Mailbox; question: Question },
  mostTurns = 6,
) {
  const messages = opening(inbox, question, mostTurns);
  const call = (name: string, args: unknown): string => {
    const id = `call_${messages.length}`;
    const given = JSON.stringify(args);
    messages.push({
      ...{ role: "assistant" as const, content: "" },
      tool_calls: [{ id, type: "function", function: { name, arguments: given } }],
    });
    const outcome = callTool(mailbox, name, given);
    if (outcome.kind === "answer") return "";
    messages.push({ role: "tool", tool_call_id: id, content: outcome.text });
    return outcome.text;
  };
  const [, attribute = "", project = ""] = /the (\w+) of (\w+)\?/.exec(question.question) ?? [];
  const keywords = { both: [project, attribute], project: [project], attribute: [attribute] };
  const found = JSON.parse(
    call("search_emails", { keywords: keywords[style.keywords], max_results: 5 }),
  ) as { message_id: string; snippet: string }[];
  const hit = chosen(style.reads, found);
  let answer = "I don't know";
  if (hit) {
    const { body } = JSON.parse(call("read_email", { message_id: hit })) as { body: string };
    answer = /: (\w+)$/.exec(body)?.[1] ?? answer;
  }
  call("return_final_answer", { answer, sources: hit && style.cites ? [hit] : [] });
  const sources = hit && style.cites ? [hit] : [];
  const read = new Set(hit ? [hit] : []);
  const ids = new Set(found.map(({ message_id }) => message_id));
  const turns = hit ? 3 : 2;
  const episode: Episode = {
    ...{ answer, sources, found: ids, read, invalidReads: 0, turns, mostTurns, failure: null },
  };
  return { messages, tools, episode };
}

function chosen(
  reads: Style["reads"],
  found: readonly { message_id: string; snippet: string }[],
): string | undefined {
  if (reads === "none") return undefined;
  if (reads === "oldest") return found.at(-1)?.message_id;
  const first = reads === "newest" ? undefined : found.find((one) => !one.snippet.startsWith("Re"));
  return (first ?? found[0])?.message_id;
}

/** Transcripts of the expert on questions of these inboxes, in turn: each question once, a count of them in all. */
export function demonstrations(
  count: number,
  inboxes: readonly { inbox: Inbox; mailbox: Mailbox }[],
  mostTurns: number,
): SftExample[] {
  return Array.from({ length: count }, (_, at) => {
    const one = inboxes[at % inboxes.length]!;
    const question = one.inbox.questions[Math.floor(at / inboxes.length)]!;
    const { messages, tools: given } = play(expert, { ...one, question }, mostTurns);
    // OpenAI's types also know messages of roles that no player has.
    return { messages, tools: given } as SftExample;
  });
}
