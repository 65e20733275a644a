import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Agent as MastraAgent } from "@mastra/core/agent";
import { createTool } from "@mastra/core/tools";
import type { Agent } from "../src/desk.ts";
import { withPlainTools } from "./plain-tools.ts";

/** Mastra. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { model: name, ...connection } = withPlainTools(desk.counted(model.connection()));
  const provider = createOpenAICompatible({ name: "hone", ...connection });
  const tools = desk.tools.map(({ function: { name: id, description = "", parameters = {} } }) => [
    id,
    createTool({ id, description, inputSchema: parameters, execute: (args) => desk.run(id, args) }),
  ]);
  const answerer = new MastraAgent({
    id: "answerer",
    name: "Answerer",
    instructions: system,
    model: provider(name),
    tools: Object.fromEntries(tools),
  });
  await answerer.generate(question, {
    maxSteps: mostTurns,
    stopWhen: () => desk.ended,
    modelSettings: { temperature: options.temperature, maxOutputTokens: options.answerTokens },
    abortSignal: model.signal,
  });
};
