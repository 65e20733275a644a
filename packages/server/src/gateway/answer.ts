import { newId, type AssistantMessage, type Usage } from "@hone/core";
import type { Renderer } from "../ports/renderer.ts";
import type { PreparedAsk } from "./prepare.ts";
import type { Answer, Sample } from "./sample.ts";

/** The assistant's messages of finished choices. */
export function makeAnswers(
  renderer: Renderer,
  prepared: PreparedAsk,
  samples: readonly Sample[],
): Promise<Answer[]> {
  return Promise.all(samples.map((sample) => makeAnswer(renderer, prepared, sample)));
}

async function makeAnswer(
  renderer: Renderer,
  prepared: PreparedAsk,
  sample: Sample,
): Promise<Answer> {
  const { ask, engineRequest } = prepared;
  const finish = sample.finish ?? "length";
  // An answer that is held to a grammar has no reasoning and no calls. A parser might find some in its strings.
  if (ask.kind === "text" || ask.format) {
    return { message: { role: "assistant", content: sample.text }, finishReason: finish };
  }
  const last = sample.ids.at(-1);
  const cutByString =
    engineRequest.stop.length > 0 &&
    sample.finish === "stop" &&
    !(last !== undefined && engineRequest.stopTokenIds.includes(last));
  // The ids run on past a stop string, which may stand in a thought, in a call or in the content.
  const visible = cutByString ? sample.text : undefined;
  const parsed = await renderer.parse(sample.ids, ask.callable, visible);
  const calls = parsed.toolCalls.map((made) => ({
    id: newCallId(),
    type: "function" as const,
    function: { name: made.name, arguments: made.arguments },
  }));
  const message: AssistantMessage = {
    role: "assistant",
    content: parsed.content || (calls.length > 0 ? null : ""),
    ...(calls.length > 0 && { tool_calls: calls }),
    ...(parsed.reasoning && { reasoning_content: parsed.reasoning }),
  };
  return { message, finishReason: calls.length > 0 && finish === "stop" ? "tool_calls" : finish };
}

export function usageOf({ engineRequest }: PreparedAsk, samples: readonly Sample[]): Usage {
  const prompt = engineRequest.prompt.length;
  const sampled = samples.reduce((sum, sample) => sum + sample.ids.length, 0);
  return { prompt_tokens: prompt, completion_tokens: sampled, total_tokens: prompt + sampled };
}

function newCallId(): string {
  return `call_${newId("cmpl").slice("cmpl_".length)}`;
}
