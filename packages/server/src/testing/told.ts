import type { Ask } from "../gateway/ask.ts";
import type { PreparedAsk } from "../gateway/prepare.ts";

/** An ask for the policy `m@1` under the prompt `[7, 8]`, outside any rollout. */
export function anAsk(ask: Ask): PreparedAsk {
  return {
    ask,
    answerId: "cmpl_1",
    engineRequest: {
      model: "m@1",
      prompt: [7, 8],
      n: ask.n,
      maxTokens: 16,
      temperature: ask.temperature,
      topP: ask.topP,
      seed: ask.seed,
      stop: ask.stop,
      stopTokenIds: [0],
      stream: ask.stream,
      signal: new AbortController().signal,
    },
    record: null,
    policy: "m@1",
    headers: {},
  };
}

export const usage = { prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 };

/** The events of a stream, parsed; `[DONE]` as it is. */
export function eventsOf(stream: string): unknown[] {
  const parts = stream.split("\n\n").filter(Boolean);
  return parts.map((part) => {
    const data = part.replace(/^data: /, "");
    return data === "[DONE]" ? data : (JSON.parse(data) as unknown);
  });
}
