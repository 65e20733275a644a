import type { Agent } from "../src/desk.ts";

interface Message {
  role: "assistant";
  content: string | null;
  tool_calls?: { id: string; function: { name: string; arguments: string } }[];
}

/** No SDK at all. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { baseURL, apiKey, model: name, fetch } = desk.counted(model.connection());
  const messages: object[] = [
    { role: "system", content: system },
    { role: "user", content: question },
  ];
  while (!desk.ended && desk.turns < mostTurns) {
    const { temperature, answerTokens: max_tokens } = options;
    const body = { model: name, messages, tools: desk.tools, temperature, max_tokens };
    const response = await fetch(`${baseURL}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: model.signal,
    });
    if (!response.ok) throw new Error(await response.text());
    const { choices } = (await response.json()) as { choices: [{ message: Message }] };
    const { message } = choices[0];
    if (!message.tool_calls?.length) return;
    messages.push(message);
    for (const { id, function: call } of message.tool_calls) {
      const content = await desk.run(call.name, call.arguments);
      messages.push({ role: "tool", tool_call_id: id, content });
    }
  }
};
