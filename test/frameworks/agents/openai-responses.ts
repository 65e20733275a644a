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
    const body = { model, instructions, input, tools };
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

/** Each request names the answer before it, and holds what is new. */
export const previous: Agent = async ({ openai, streamed }) => {
  const { model, ...connection } = openai;
  const client = new OpenAI(connection);
  let input: OpenAI.Responses.ResponseInputItem[] = [{ role: "user", content: question }];
  let previous_response_id: string | null = null;
  for (;;) {
    const body = { model, instructions, input, tools, previous_response_id };
    const response: OpenAI.Responses.Response = streamed
      ? await client.responses.stream(body).finalResponse()
      : await client.responses.create(body);
    const calls = response.output.flatMap((item) => (item.type === "function_call" ? item : []));
    if (calls.length === 0) return textOf(response);
    previous_response_id = response.id;
    input = calls.map(({ call_id, name, arguments: args }) => ({
      type: "function_call_output",
      call_id,
      output: result(name, args),
    }));
  }
};

/** `output_text`, which `finalResponse()` of openai 5 lacks. */
function textOf({ output }: OpenAI.Responses.Response): string {
  return output
    .flatMap((item) => (item.type === "message" ? item.content : []))
    .map((part) => (part.type === "output_text" ? part.text : ""))
    .join("");
}
