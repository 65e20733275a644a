import OpenAI from "openai";
import type { Agent } from "../agent.ts";
import { describe, instructions, question, result, schemas } from "../house.ts";

const tools: OpenAI.ChatCompletionTool[] = (["look", "open"] as const).map((name) => ({
  type: "function",
  function: { name, description: describe[name], parameters: schemas[name] },
}));

/** A loop over `chat.completions`, with the stream helper. */
export const agent: Agent = async ({ openai: connection, streamed }) => {
  // #region connect
  const { model, ...settings } = connection;
  const client = new OpenAI(settings);
  // #endregion
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "system", content: instructions },
    { role: "user", content: question },
  ];
  for (;;) {
    const body = { model, messages, tools };
    const completion = streamed
      ? await client.chat.completions.stream(body).finalChatCompletion()
      : await client.chat.completions.create(body);
    const { message } = completion.choices[0]!;
    messages.push(message);
    if (!message.tool_calls?.length) return message.content ?? "";
    for (const call of message.tool_calls) {
      if (call.type !== "function") continue;
      const content = result(call.function.name, call.function.arguments);
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
  }
};
