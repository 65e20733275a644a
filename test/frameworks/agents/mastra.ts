import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Agent as MastraAgent } from "@mastra/core/agent";
import { createTool } from "@mastra/core/tools";
import { z } from "zod";
import type { Agent, Play } from "../agent.ts";
import { describe, instructions, look, open, question } from "../house.ts";

const tools = {
  look: createTool({
    id: "look",
    description: describe.look,
    inputSchema: z.object({ where: z.enum(["attic", "hall"]) }),
    execute: async (args) => look(args),
  }),
  open: createTool({
    id: "open",
    description: describe.open,
    inputSchema: z.object({ what: z.enum(["chest"]) }),
    execute: async (args) => open(args),
  }),
};

const finderOf = ({ openai: connection }: Play) => {
  // #region connect
  const { model, ...settings } = connection;
  const provider = createOpenAICompatible({
    name: "hone",
    ...settings,
    supportsStructuredOutputs: true, // else a schema becomes "any JSON object"
  });
  const finder = new MastraAgent({
    id: "finder",
    name: "Finder",
    instructions,
    model: provider(model),
    tools,
  });
  // #endregion
  return finder;
};

export const agent: Agent = async (play) => {
  const finder = finderOf(play);
  return play.streamed
    ? await (
        await finder.stream(question)
      ).text
    : (await finder.generate(question)).text;
};

export const structured: Agent = async (play) => {
  const options = { structuredOutput: { schema: z.object({ place: z.enum(["chest"]) }) } };
  const finder = finderOf(play);
  const answer = play.streamed
    ? await (
        await finder.stream(question, options)
      ).object
    : (await finder.generate(question, options)).object;
  return JSON.stringify(answer);
};
