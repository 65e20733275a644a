import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool, type LanguageModel } from "ai";
import { z } from "zod";
import type { Agent, Play } from "../agent.ts";
import { describe, instructions, look, open, question } from "../house.ts";

export const tools = {
  look: tool({
    description: describe.look,
    inputSchema: z.object({ where: z.enum(["attic", "hall"]) }),
    execute: async (args) => look(args),
  }),
  open: tool({
    description: describe.open,
    inputSchema: z.object({ what: z.enum(["chest"]) }),
    execute: async (args) => open(args),
  }),
};

/** `generateText` and `streamText`, which run the tools themselves. */
const play =
  (languageModel: (play: Play) => LanguageModel): Agent =>
  async (given) => {
    const ask = {
      model: languageModel(given),
      system: instructions,
      prompt: question,
      tools,
      stopWhen: stepCountIs(5),
    };
    return given.streamed ? streamText(ask).text : (await generateText(ask)).text;
  };

export const compatible = play(({ openai: connection }) => {
  // #region compatible
  const { model, ...settings } = connection;
  const languageModel = createOpenAICompatible({ name: "hone", ...settings })(model);
  // #endregion
  return languageModel;
});
export const chat = play(({ openai: { model, ...connection } }) =>
  createOpenAI(connection).chat(model),
);
export const responses = play(({ openai: { model, ...connection } }) =>
  createOpenAI(connection).responses(model),
);
