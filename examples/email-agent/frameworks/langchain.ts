import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { createAgent, createMiddleware } from "langchain";
import type { Agent, Work } from "../src/desk.ts";

export function modelOf({ model, desk, temperature, answerTokens: maxTokens }: Work): ChatOpenAI {
  const { model: name, apiKey, ...configuration } = desk.counted(model.connection());
  return new ChatOpenAI({ model: name, apiKey, configuration, temperature, maxTokens });
}

export const toolsOf = ({ desk }: Work) =>
  desk.tools.map(({ function: { name, description = "", parameters = {} } }) =>
    tool((args) => desk.run(name, args), { name, description, schema: parameters }),
  );

/** LangChain's `createAgent`. */
export const agent: Agent = async (work) => {
  const { model, system, question, desk, mostTurns } = work;
  const ends = createMiddleware({
    name: "Ends",
    beforeModel: {
      canJumpTo: ["end"],
      hook: () => (desk.ended || desk.turns >= mostTurns ? { jumpTo: "end" as const } : undefined),
    },
  });
  const answerer = createAgent({
    model: modelOf(work),
    tools: toolsOf(work),
    systemPrompt: system,
    middleware: [ends],
  });
  await answerer.invoke(
    { messages: [{ role: "user", content: question }] },
    { signal: model.signal, recursionLimit: 4 * mostTurns + 4 },
  );
};
