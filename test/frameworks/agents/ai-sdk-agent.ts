import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, stepCountIs, ToolLoopAgent } from "ai";
import { z } from "zod";
import type { Agent, Play } from "../agent.ts";
import { instructions, question } from "../house.ts";
import { tools } from "./ai-sdk.ts";

const modelOf = ({ openai: { model, ...connection } }: Play) =>
  createOpenAICompatible({ name: "hone", ...connection, supportsStructuredOutputs: true })(model);

/** An agent whose later steps show fewer tools: the prompt changes, and the conversation splits there. */
export const prepared: Agent = async (play) => {
  const agent = new ToolLoopAgent({
    model: modelOf(play),
    instructions,
    tools,
    stopWhen: stepCountIs(5),
    prepareStep: ({ stepNumber }) => (stepNumber === 0 ? {} : { activeTools: ["open"] }),
  });
  return play.streamed
    ? (await agent.stream({ prompt: question })).text
    : (await agent.generate({ prompt: question })).text;
};

/** An agent that answers with an object. */
export const output: Agent = async (play) => {
  const agent = new ToolLoopAgent({
    model: modelOf(play),
    instructions,
    tools,
    stopWhen: stepCountIs(5),
    output: Output.object({ schema: z.object({ place: z.enum(["chest"]) }) }),
  });
  const answer = play.streamed
    ? await (
        await agent.stream({ prompt: question })
      ).output
    : (await agent.generate({ prompt: question })).output;
  return JSON.stringify(answer);
};
