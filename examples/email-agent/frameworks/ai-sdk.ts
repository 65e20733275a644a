import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, tool } from "ai";
import type { Agent } from "../src/desk.ts";

/** The AI SDK's `generateText`, which runs the tools itself. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { model: name, ...connection } = desk.counted(model.connection());
  const provider = createOpenAICompatible({ name: "hone", ...connection });
  const tools = desk.tools.map(
    ({ function: { name: called, description = "", parameters = {} } }) => [
      called,
      tool({
        description,
        inputSchema: jsonSchema<object>(parameters),
        execute: (args) => desk.run(called, args),
      }),
    ],
  );
  await generateText({
    model: provider(name),
    system,
    prompt: question,
    tools: Object.fromEntries(tools),
    stopWhen: [stepCountIs(mostTurns), () => desk.ended],
    temperature: options.temperature,
    maxOutputTokens: options.answerTokens,
    abortSignal: model.signal,
  });
};
