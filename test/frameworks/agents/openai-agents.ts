import { Agent as OpenAIAgent, OpenAIProvider, Runner, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import type { Agent } from "../agent.ts";
import { describe, instructions, look, open, question } from "../house.ts";

const tools = [
  tool({
    name: "look",
    description: describe.look,
    parameters: z.object({ where: z.enum(["attic", "hall"]) }),
    execute: async (args) => look(args),
  }),
  tool({
    name: "open",
    description: describe.open,
    parameters: z.object({ what: z.enum(["chest"]) }),
    execute: async (args) => open(args),
  }),
];

const play =
  (useResponses: boolean): Agent =>
  async ({ openai: connection, streamed }) => {
    // #region connect
    const { model, ...settings } = connection;
    const openAIClient = new OpenAI(settings);
    const runner = new Runner({
      modelProvider: new OpenAIProvider({ openAIClient, useResponses }), // true or false
      tracingDisabled: true, // traces would go to OpenAI
    });
    const finder = new OpenAIAgent({ name: "Finder", instructions, model, tools });
    // #endregion
    if (!streamed) return (await runner.run(finder, question)).finalOutput ?? "";
    const stream = await runner.run(finder, question, { stream: true });
    await stream.completed;
    return stream.finalOutput ?? "";
  };

export const chat = play(false);
export const responses = play(true);
