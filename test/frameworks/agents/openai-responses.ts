import OpenAI from "openai";
import type { Agent } from "../agent.ts";
import { describe, instructions, question, result, schemas } from "../house.ts";

const tools: OpenAI.Responses.FunctionTool[] = (["look", "open"] as const).map((name) => ({
  type: "function",
  name,
  description: describe[name],
  parameters: schemas[name],
  strict: true,
}));

/** A loop over `responses`: each request holds all items so far. */
export const agent: Agent = async ({ openai, streamed }) => {
  const { model, ...connection } = openai;
  const client = new OpenAI(connection);
  const input: OpenAI.Responses.ResponseInputItem[] = [{ role: "user", content: question }];
  for (;;) {
    const body = { model, instructions, input, tools, store: false };
    const response = streamed
      ? await client.responses.stream(body).finalResponse()
      : await client.responses.create(body);
    input.push(...(response.output as OpenAI.Responses.ResponseInputItem[]));
    const calls = response.output.flatMap((item) => (item.type === "function_call" ? item : []));
    if (calls.length === 0) return textOf(response);
    for (const call of calls) {
      const output = result(call.name, call.arguments);
      input.push({ type: "function_call_output", call_id: call.call_id, output });
    }
  }
};

/** `output_text`, which `finalResponse()` of openai 5 lacks. */
function textOf({ output }: OpenAI.Responses.Response): string {
  return output
    .flatMap((item) => (item.type === "message" ? item.content : []))
    .map((part) => (part.type === "output_text" ? part.text : ""))
    .join("");
}
