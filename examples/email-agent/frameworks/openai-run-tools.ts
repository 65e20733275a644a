import OpenAI from "openai";
import { LengthFinishReasonError } from "openai/error";
import type { Agent } from "../src/desk.ts";

/** OpenAI's own loop over chat completions. A function ends it by `runner.abort()`. */
export const agent: Agent = async ({ model, system, question, desk, mostTurns, ...options }) => {
  const { model: name, ...connection } = desk.counted(model.connection());
  const client = new OpenAI(connection);
  const runner = client.chat.completions.runTools(
    {
      model: name,
      messages: [
        { role: "system", content: system },
        { role: "user", content: question },
      ],
      tools: desk.tools.map(({ function: { name: tool, description = "", parameters = {} } }) => ({
        type: "function",
        function: {
          ...{ name: tool, description, parameters },
          function: async (args: string) => {
            const told = await desk.run(tool, args);
            if (desk.ended) runner.abort();
            return told;
          },
        },
      })),
      temperature: options.temperature,
      max_completion_tokens: options.answerTokens,
    },
    { signal: model.signal, maxChatCompletions: mostTurns },
  );
  await runner.done().catch((error: unknown) => {
    // Answers that the limit of tokens cut are thrown, too.
    const over = desk.ended || desk.turns >= mostTurns || error instanceof LengthFinishReasonError;
    if (!over || model.signal.aborted) throw error;
  });
};
