import { HoneError, type ChatRequest } from "@hone/core";
import type { Ask } from "../ask.ts";

type SharedKeys = Pick<
  ChatRequest,
  "model" | "n" | "seed" | "stop" | "stream" | "stream_options" | "temperature" | "top_p"
>;

/** Reads the keys that both of OpenAI's requests have. */
export function readShared(request: SharedKeys) {
  const { stop } = request;
  if (request.stream_options && !request.stream) {
    throw refusal("stream_options", 'only with "stream": true. Leave it out, or stream.');
  }
  return {
    model: request.model,
    n: request.n ?? 1,
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    seed: request.seed ?? null,
    stop: typeof stop === "string" ? [stop] : (stop ?? []),
    stream: request.stream === true,
  } satisfies Partial<Ask>;
}

/** Refuses keys that the schema allows and that would otherwise be ignored silently. */
export function refusal(param: string, message: string): HoneError {
  return new HoneError(`${param}: ${message}`, { code: "unsupported_parameter", param });
}

export function sse(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

export const streamEnd = "data: [DONE]\n\n";

/** @unit s */
export function createdNow(): number {
  return Math.floor(Date.now() / 1000);
}
