import { fieldsOf, listOf, readContent, readSaid, textField } from "./provider-message.ts";
import type { Said } from "./provider-message.ts";

/** What a model of any provider answered. */
export interface ProviderAnswer extends Said {
  /** The id of the answer, for APIs that go on from it. */
  id: string | null;
  model: string | null;
  /** As the provider says it: `stop`, `length`, `tool_calls`, `end_turn`, … */
  finishReason: string | null;
  promptTokens: number | null;
  completionTokens: number | null;
}

/**
 * Reads a whole answer: of chat completions, completions, the Responses API, Anthropic's Messages or Ollama's chat.
 * Null where it is none of them.
 */
export function readProviderAnswer(value: unknown): ProviderAnswer | null {
  const body = fieldsOf(value);
  const said = wholeSaid(body);
  return said && { ...headOf(body), ...said };
}

function wholeSaid(body: Record<string, unknown>): (Said & { finishReason: string | null }) | null {
  const choices = listOf(body["choices"]).map(fieldsOf);
  const choice = choices.find(({ index }) => index === 0) ?? choices[0];
  if (choice) {
    const finishReason = textField(choice["finish_reason"]);
    const text = textField(choice["text"]);
    if (choice["message"] == null && text !== null) return { ...readContent(text), finishReason };
    return { ...readSaid(choice["message"] ?? choice["delta"]), finishReason };
  }
  if (Array.isArray(body["output"])) return readOutput(body);
  if (body["type"] === "message" || (Array.isArray(body["content"]) && "stop_reason" in body)) {
    return { ...readContent(body["content"]), finishReason: textField(body["stop_reason"]) };
  }
  if ("message" in body && typeof body["message"] === "object") {
    return { ...readSaid(body["message"]), finishReason: textField(body["done_reason"]) };
  }
  return null;
}

/** The items of the Responses API. */
function readOutput(body: Record<string, unknown>): Said & { finishReason: string | null } {
  const parts = listOf(body["output"]).flatMap((given) => {
    const item = fieldsOf(given);
    return item["type"] === "message" ? listOf(item["content"]) : [given];
  });
  const reason = textField(fieldsOf(body["incomplete_details"])["reason"]);
  return {
    ...readContent(parts),
    finishReason: reason === "max_output_tokens" ? "length" : (reason ?? textField(body["status"])),
  };
}

function headOf(
  body: Record<string, unknown>,
): Pick<ProviderAnswer, "id" | "model" | "promptTokens" | "completionTokens"> {
  const usage = fieldsOf(body["usage"]);
  const count = (...names: string[]): number | null => {
    const found = names
      .map((name) => usage[name] ?? body[name])
      .find((one) => typeof one === "number");
    return found === undefined ? null : found;
  };
  return {
    id: textField(body["id"]),
    model: textField(body["model"]),
    promptTokens: count("prompt_tokens", "input_tokens", "prompt_eval_count"),
    completionTokens: count("completion_tokens", "output_tokens", "eval_count"),
  };
}
