import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { loadAgent, type AgentName } from "./agents.ts";
import type { Inbox, Question } from "./corpus.ts";
import { Desk, type Work } from "./desk.ts";
import type { Episode } from "./gold.ts";
import { Mailbox } from "./mailbox.ts";
import type { McpMailbox } from "./mcp-mailbox.ts";
import { callTool, tools } from "./tools.ts";

export interface AgentOptions {
  mostTurns: number;
  temperature: number;
  answerTokens: number;
  /** Which framework it is written in. @default "openai" */
  agent?: AgentName | undefined;
}

export function opening(
  { owner, today }: Pick<Inbox, "owner" | "today">,
  { question }: Pick<Question, "question">,
  mostTurns: number,
): OpenAI.ChatCompletionMessageParam[] {
  return [
    { role: "system", content: systemText({ owner, today }, mostTurns) },
    { role: "user", content: question },
  ];
}

function systemText({ owner, today }: Pick<Inbox, "owner" | "today">, mostTurns: number): string {
  return `You answer questions from the mails of ${owner}. Call one tool a turn, ${mostTurns} turns at most. Today is ${today}.`;
}

/** Lets an agent answer a question, and tells what it did. */
export async function answerFromMails(
  model: RolloutModel,
  { inbox, mailbox, question }: { inbox: Inbox; mailbox: Mailbox | McpMailbox; question: Question },
  { agent = "openai", ...options }: AgentOptions,
): Promise<Episode & { tokens: number }> {
  const desk = new Desk(
    mailbox instanceof Mailbox
      ? { tools, call: (name, given) => callTool(mailbox, name, given) }
      : { tools: mailbox.tools, call: (name, given) => mailbox.call(name, given, model.signal) },
  );
  const system = systemText(inbox, options.mostTurns);
  const work = { model, system, question: question.question, desk, ...options };
  await (agent === "openai" ? chat(work) : (await loadAgent(agent))(work));
  return desk.episode(options.mostTurns);
}

// #region agent
/** Searches, reads and answers, over chat completions. */
async function chat({ model, system, question, desk, mostTurns, ...options }: Work) {
  const { model: name, ...connection } = desk.counted(model.connection());
  const client = new OpenAI(connection);
  const { temperature, answerTokens: max_completion_tokens } = options;
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "system", content: system },
    { role: "user", content: question },
  ];
  while (!desk.ended && desk.turns < mostTurns) {
    const { choices } = await client.chat.completions.create(
      { model: name, messages, tools: [...desk.tools], temperature, max_completion_tokens },
      { signal: model.signal },
    );
    const { message } = choices[0]!;
    if (!message.tool_calls?.length) return;
    messages.push(message);
    for (const call of message.tool_calls) {
      if (call.type !== "function") continue;
      const content = await desk.run(call.function.name, call.function.arguments);
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
  }
}
// #endregion
