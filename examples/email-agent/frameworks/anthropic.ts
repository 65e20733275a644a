import Anthropic from "@anthropic-ai/sdk";
import type { Agent } from "../src/desk.ts";

/** A loop over Anthropic's Messages. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { model: name, ...connection } = desk.counted(model.anthropic());
  const client = new Anthropic(connection);
  const tools = desk.tools.map(
    ({ function: { name: called, description = "", parameters } }): Anthropic.Tool => ({
      ...{ name: called, description },
      input_schema: { ...parameters, type: "object" },
    }),
  );
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: question }];
  while (!desk.ended && desk.turns < mostTurns) {
    const { content } = await client.messages.create(
      {
        ...{ model: name, system, messages, tools, temperature: options.temperature },
        max_tokens: options.answerTokens,
      },
      { signal: model.signal },
    );
    const results: Anthropic.ToolResultBlockParam[] = [];
    for (const block of content) {
      if (block.type !== "tool_use") continue;
      const told = await desk.run(block.name, block.input);
      results.push({ type: "tool_result", tool_use_id: block.id, content: told });
    }
    if (results.length === 0) return;
    messages.push({ role: "assistant", content }, { role: "user", content: results });
  }
};
