import OpenAI from "openai";
import type { Agent } from "../agent.ts";
import { describe, instructions, question, result, schemas } from "../house.ts";

/** The SDK's own loop. It ends where a function throws, so the functions tell their errors. */
export const agent: Agent = async ({ openai, streamed }) => {
  const { model, ...connection } = openai;
  const client = new OpenAI(connection);
  const ask = {
    model,
    messages: [
      { role: "system" as const, content: instructions },
      { role: "user" as const, content: question },
    ],
    tools: (["look", "open"] as const).map((name) => ({
      type: "function" as const,
      function: {
        name,
        description: describe[name],
        parameters: schemas[name],
        function: (args: string) => result(name, args),
      },
    })),
  };
  const runner = streamed
    ? client.chat.completions.runTools({ ...ask, stream: true })
    : client.chat.completions.runTools(ask);
  return (await runner.finalContent()) ?? "";
};
