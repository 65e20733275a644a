import { newId, type AssistantMessage, type Usage } from "@hone/core";
import type { Renderer } from "../ports/renderer.ts";
import type { ChatAsk } from "./ask.ts";
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
    ask.stop.length > 0 &&
    sample.finish === "stop" &&
    !(last !== undefined && engineRequest.stopTokenIds.includes(last));
  const stopString =
    cutByString && ask.kind === "chat" ? firstOf(ask.stop, await tokens.text(sample.ids)) : null;
  // A JSON answer has no reasoning and no calls. A parser might find some in its strings.
  if (ask.kind === "text" || (ask.format && !(await isCall(renderer, ask, sample)))) {
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

/** Whether an answer that is held to a format calls instead. Its strings may spell the marks of a call. */
async function isCall(renderer: Renderer, { callable }: ChatAsk, sample: Sample): Promise<boolean> {
  if (!callable) return false;
  const { callEnd } = await renderer.info();
  if (callEnd?.id != null) return sample.ids.includes(callEnd.id);
  return sample.text.startsWith("<");
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
