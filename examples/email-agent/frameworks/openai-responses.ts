import OpenAI from "openai";
import type { Agent } from "../src/desk.ts";

/** A loop over OpenAI's Responses: each request holds all items so far. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { model: name, ...connection } = desk.counted(model.connection());
  const client = new OpenAI(connection);
  const tools = desk.tools.map(
    ({ function: { name: tool, description = "", parameters = {} } }): OpenAI.Responses.Tool => ({
      ...{ type: "function", name: tool, description, parameters, strict: null },
    }),
  );
  const input: OpenAI.Responses.ResponseInput = [{ role: "user", content: question }];
  while (!desk.ended && desk.turns < mostTurns) {
    const { output } = await client.responses.create(
      {
        ...{ model: name, instructions: system, input, tools, temperature: options.temperature },
        max_output_tokens: options.answerTokens,
      },
      { signal: model.signal },
    );
    const calls = output.filter((item) => item.type === "function_call");
    if (calls.length === 0) return;
    input.push(...(output as OpenAI.Responses.ResponseInput));
    for (const call of calls) {
      const told = await desk.run(call.name, call.arguments);
      input.push({ type: "function_call_output", call_id: call.call_id, output: told });
    }
  }
};
