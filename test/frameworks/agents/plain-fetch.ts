import type { Agent } from "../agent.ts";
import { describe, instructions, question, result, schemas } from "../house.ts";

interface Call {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}
interface Answer {
  role: "assistant";
  content: string | null;
  tool_calls?: Call[];
}

const tools = (["look", "open"] as const).map((name) => ({
  type: "function",
  function: { name, description: describe[name], parameters: schemas[name] },
}));

/** No SDK at all. */
export const agent: Agent = async ({ openai: { baseURL, apiKey, model, fetch }, streamed }) => {
  const messages: object[] = [
    { role: "system", content: instructions },
    { role: "user", content: question },
  ];
  for (;;) {
    const response = await fetch(`${baseURL}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      body: JSON.stringify({ model, messages, tools, stream: streamed }),
    });
    if (!response.ok) throw new Error(await response.text());
    const message = streamed ? gathered(await response.text()) : await whole(response);
    messages.push(message);
    if (!message.tool_calls?.length) return message.content ?? "";
    for (const { id, function: call } of message.tool_calls) {
      const content = result(call.name, call.arguments);
      messages.push({ role: "tool", tool_call_id: id, content });
    }
  }
};

async function whole(response: Response): Promise<Answer> {
  const { choices } = (await response.json()) as { choices: { message: Answer }[] };
  return choices[0]!.message;
}

/** Puts the deltas of a stream together. */
function gathered(body: string): Answer {
  const answer: Answer = { role: "assistant", content: null };
  for (const line of body.split("\n")) {
    if (!line.startsWith("data: {")) continue;
    const { choices } = JSON.parse(line.slice("data: ".length)) as {
      choices: { delta: { content?: string; tool_calls?: (Call & { index: number })[] } }[];
    };
    const delta = choices[0]?.delta;
    if (delta?.content) answer.content = (answer.content ?? "") + delta.content;
    for (const { index, ...part } of delta?.tool_calls ?? []) {
      const calls = (answer.tool_calls ??= []);
      const call = calls[index];
      if (call) call.function.arguments += part.function.arguments;
      else calls[index] = part;
    }
  }
  return answer;
}
