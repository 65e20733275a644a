import Anthropic from "@anthropic-ai/sdk";
import type { Agent } from "../agent.ts";
import { describe, instructions, question, result, schemas } from "../house.ts";

const tools: Anthropic.Tool[] = (["look", "open"] as const).map((name) => ({
  name,
  description: describe[name],
  input_schema: schemas[name],
}));

/** The SDK's own loop. */
export const toolRunner: Agent = async ({ anthropic: { model, ...connection }, streamed }) => {
  const client = new Anthropic(connection);
  const ask = {
    model,
    max_tokens: 1024,
    system: instructions,
    messages: [{ role: "user" as const, content: question }],
    tools: tools.map(({ name, description, input_schema }) => ({
      ...{ type: "custom" as const, name, description: description!, input_schema },
      run: (input: unknown) => result(name, JSON.stringify(input)),
      parse: (input: unknown) => input,
    })),
  };
  const last = streamed
    ? await client.beta.messages.toolRunner({ ...ask, stream: true }).runUntilDone()
    : await client.beta.messages.toolRunner(ask).runUntilDone();
  return last.content.map((block) => (block.type === "text" ? block.text : "")).join("");
};

export const agent: Agent = async ({ anthropic, streamed }) => {
  const { model, ...connection } = anthropic;
  const client = new Anthropic(connection);
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: question }];
  for (;;) {
    const body = { model, max_tokens: 1024, system: instructions, messages, tools };
    const answer = streamed
      ? await client.messages.stream(body).finalMessage()
      : await client.messages.create(body);
    messages.push({ role: "assistant", content: answer.content });
    const calls = answer.content.filter((block) => block.type === "tool_use");
    if (calls.length === 0) {
      return answer.content.map((block) => (block.type === "text" ? block.text : "")).join("");
    }
    messages.push({
      role: "user",
      content: calls.map(({ id, name, input }) => {
        const content = result(name, JSON.stringify(input));
        const is_error = content.startsWith("Error");
        return { type: "tool_result" as const, tool_use_id: id, content, is_error };
      }),
    });
  }
};
