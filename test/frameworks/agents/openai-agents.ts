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
  async ({ openai: { model, ...connection }, streamed }) => {
    const openAIClient = new OpenAI(connection);
    const runner = new Runner({
      modelProvider: new OpenAIProvider({ openAIClient, useResponses }),
      tracingDisabled: true,
    });
    const finder = new OpenAIAgent({ name: "Finder", instructions, model, tools });
    if (!streamed) return (await runner.run(finder, question)).finalOutput ?? "";
    const stream = await runner.run(finder, question, { stream: true });
    await stream.completed;
    return stream.finalOutput ?? "";
  };

export const chat = play(false);
export const responses = play(true);
