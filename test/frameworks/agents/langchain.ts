import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { createAgent, createMiddleware, providerStrategy, ToolMessage } from "langchain";
import { z } from "zod";
import type { Agent, Play } from "../agent.ts";
import { describe, instructions, look, open, question } from "../house.ts";

export const tools = [
  tool((args) => look(args), {
    name: "look",
    description: describe.look,
    schema: z.object({ where: z.enum(["attic", "hall"]) }),
  }),
  tool((args) => open(args), {
    name: "open",
    description: describe.open,
    schema: z.object({ what: z.enum(["chest"]) }),
  }),
];

export const modelOf = ({ openai: connection }: Play) => {
  // #region connect
  const { model, apiKey, ...configuration } = connection;
  const chatModel = new ChatOpenAI({ model, apiKey, configuration });
  // #endregion
  return chatModel;
};

const handleToolErrors = createMiddleware({
  name: "HandleToolErrors",
  wrapToolCall: async (request, handler) => {
    try {
      return await handler(request);
    } catch (error) {
      return new ToolMessage({
        content: `Error: ${(error as Error).message}`,
        tool_call_id: request.toolCall.id!,
      });
    }
  },
});

const place = z.object({ place: z.enum(["chest"]) }).meta({ title: "Place" });

const play =
  (responseFormat?: typeof place | ReturnType<typeof providerStrategy<typeof place>>): Agent =>
  async (given) => {
    const finder = createAgent({
      model: modelOf(given),
      tools,
      systemPrompt: instructions,
      middleware: [handleToolErrors],
      ...(responseFormat && { responseFormat }),
    });
    const state: State = given.streamed
      ? await lastState(await finder.stream(input, { streamMode: ["messages", "values"] }))
      : await finder.invoke(input);
    return responseFormat
      ? JSON.stringify(state.structuredResponse)
      : (state.messages.at(-1)?.text ?? "");
  };

const input = { messages: [{ role: "user", content: question }] };

interface State {
  messages: { text: string }[];
  structuredResponse?: unknown;
}

/** Reads the tokens as they come, and keeps what the graph's state is in the end. */
export async function lastState(stream: AsyncIterable<[string, unknown]>): Promise<State> {
  let state: State = { messages: [] };
  for await (const [mode, chunk] of stream) if (mode === "values") state = chunk as State;
  return state;
}

export const agent = play();
/** The answer is one more tool: what `createAgent` takes for models whose names it does not know. */
export const format = play(place);
/** The answer is held to the schema by `response_format`. */
export const providerFormat = play(providerStrategy(place));
