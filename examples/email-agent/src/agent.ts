import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import type { Inbox, Question } from "./corpus.ts";
import type { Episode } from "./gold.ts";
import { Mailbox } from "./mailbox.ts";
import type { McpMailbox } from "./mcp-mailbox.ts";
import { callTool, tools as ownTools } from "./tools.ts";

export interface AgentOptions {
  mostTurns: number;
  temperature: number;
  answerTokens: number;
}

export function opening(
  { owner, today }: Pick<Inbox, "owner" | "today">,
  { question }: Pick<Question, "question">,
  mostTurns: number,
): OpenAI.ChatCompletionMessageParam[] {
  return [
    {
      role: "system",
      content: `You answer questions from the mails of ${owner}. Call one tool a turn, ${mostTurns} turns at most. Today is ${today}.`,
    },
    { role: "user", content: question },
  ];
}

// #region agent
/** Searches, reads and answers. Of several calls in one turn only the first is made. */
export async function answerFromMails(
  model: RolloutModel,
  { inbox, mailbox, question }: { inbox: Inbox; mailbox: Mailbox | McpMailbox; question: Question },
  { mostTurns, temperature, answerTokens }: AgentOptions,
): Promise<Episode & { tokens: number }> {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const own = mailbox instanceof Mailbox;
  const tools = own ? ownTools : mailbox.tools;
  const messages = opening(inbox, question, mostTurns);
  const [found, read] = [new Set<string>(), new Set<string>()];
  let [invalidReads, tokens, turns] = [0, 0, 0];
  const end = (answer: string | null, sources: string[], failure: Episode["failure"] = null) => ({
    ...{ answer, sources, failure, found, read, invalidReads, turns, mostTurns, tokens },
  });
  while (turns < mostTurns) {
    turns += 1;
    const completion = await client.chat.completions.create(
      {
        ...{ model: connection.model, messages, tools, temperature },
        max_completion_tokens: answerTokens,
      },
      { signal: model.signal },
    );
    tokens += completion.usage?.completion_tokens ?? 0;
    const message = completion.choices[0]?.message;
    const call = message?.tool_calls?.[0];
    if (!message || call?.type !== "function") return end(null, [], "unparseable");
    const { name, arguments: given } = call.function;
    const outcome = own
      ? callTool(mailbox, name, given)
      : await mailbox.call(name, given, model.signal);
    if (outcome.kind === "answer") return end(outcome.answer, outcome.sources);
    if (outcome.kind === "bad_tool" || outcome.kind === "bad_arguments") {
      return end(null, [], outcome.kind);
    }
    if (outcome.kind === "found") for (const id of outcome.ids) found.add(id);
    else if (outcome.found) read.add(outcome.id);
    else invalidReads += 1;
    // Every call needs its result; the others were not made.
    messages.push(message);
    for (const { id } of message.tool_calls ?? []) {
      const content = id === call.id ? outcome.text : '{"error":"One call a turn."}';
      messages.push({ role: "tool", tool_call_id: id, content });
    }
  }
  return end(null, []);
}
// #endregion
