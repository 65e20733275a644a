import { newId, type AssistantMessage, type Usage } from "@hone/core";
import type { GatewayParts, PreparedAsk } from "./prepare.ts";
import type { Answer, Sample } from "./sample.ts";

type AnswerParts = Pick<GatewayParts, "renderer" | "tokens">;

/** The assistant's messages of finished choices. */
export function makeAnswers(
  parts: AnswerParts,
  prepared: PreparedAsk,
  samples: readonly Sample[],
): Promise<Answer[]> {
  return Promise.all(samples.map((sample) => makeAnswer(parts, prepared, sample)));
}

async function makeAnswer(
  { renderer, tokens }: AnswerParts,
  prepared: PreparedAsk,
  sample: Sample,
): Promise<Answer> {
  const { ask, engineRequest } = prepared;
  const finish = sample.finish ?? "length";
  const last = sample.ids.at(-1);
  const cutByString =
    engineRequest.stop.length > 0 &&
    sample.finish === "stop" &&
    !(last !== undefined && engineRequest.stopTokenIds.includes(last));
  const stopString =
    cutByString && ask.kind === "chat"
      ? firstOf(engineRequest.stop, await tokens.text(sample.ids))
      : null;
  // An answer that is held to a grammar has no reasoning and no calls. A parser might find some in its strings.
  if (ask.kind === "text" || ask.format) {
    return {
      message: { role: "assistant", content: sample.text },
      finishReason: finish,
      stopString,
    };
  }
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
  const finishReason = calls.length > 0 && finish === "stop" ? "tool_calls" : finish;
  return { message, finishReason, stopString };
}

/** The one that stands first in the text: the engine stopped there. */
function firstOf(stops: readonly string[], text: string): string | null {
  const found = stops.filter((stop) => text.includes(stop));
  return found.toSorted((a, b) => text.indexOf(a) - text.indexOf(b))[0] ?? null;
}

export function usageOf({ engineRequest }: PreparedAsk, samples: readonly Sample[]): Usage {
  const prompt = engineRequest.prompt.length;
  const sampled = samples.reduce((sum, sample) => sum + sample.ids.length, 0);
  return { prompt_tokens: prompt, completion_tokens: sampled, total_tokens: prompt + sampled };
}

function newCallId(): string {
  return `call_${newId("cmpl").slice("cmpl_".length)}`;
}
