import {
  messageText,
  type FinishReason,
  type ResponsesAnswer,
  type ResponsesEvent,
  type ResponsesOutputItem,
  type ResponsesRequest,
  type ToolCall,
  type Usage,
} from "@hone/core";
import type { Writer } from "../../answer-events.ts";
import type { PreparedAsk } from "../../prepare.ts";
import { createdNow } from "../openai.ts";
import { itemIdOf, responseIdOf } from "./recall.ts";

/** OpenAI's `response`, and the events of its stream. */
export function writeResponses(request: ResponsesRequest, prepared: PreparedAsk): Writer {
  const blank = blankAnswer(request, prepared);
  const output: ResponsesOutputItem[] = [];
  let sequence = 0;
  let open: Open | null = null;
  let reason: FinishReason = "stop";

  const sse = (event: Unnumbered): string =>
    `event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: sequence++ })}\n\n`;
  const idOf = (type: ResponsesOutputItem["type"]): string => {
    const nth = output.filter((item) => item.type === type).length;
    return itemIdOf(prepared.answerId, request, type, nth);
  };

  function begin(type: Open["type"]): string {
    const closed = close("completed");
    const at = output.length;
    const id = idOf(type);
    open = { type, id, at, text: "" };
    return (
      closed +
      sse({
        type: "response.output_item.added",
        output_index: at,
        item: { ...textItem(open, "in_progress"), content: [] } as ResponsesOutputItem,
      }) +
      sse({ type: "response.content_part.added", ...placeOf(open), part: partOf(type, "") })
    );
  }

  function say(type: Open["type"], delta: string): string {
    const begun = open?.type === type ? "" : begin(type);
    open!.text += delta;
    const place = placeOf(open!);
    return (
      begun +
      (type === "message"
        ? sse({ type: "response.output_text.delta", ...place, delta, logprobs: [] })
        : sse({ type: "response.reasoning_text.delta", ...place, delta }))
    );
  }

  function close(status: ItemStatus): string {
    if (open === null) return "";
    const place = placeOf(open);
    const { type, text, at } = open;
    const item = textItem(open, status);
    output.push(item);
    open = null;
    return (
      (type === "message"
        ? sse({ type: "response.output_text.done", ...place, text, logprobs: [] })
        : sse({ type: "response.reasoning_text.done", ...place, text })) +
      sse({ type: "response.content_part.done", ...place, part: partOf(type, text) }) +
      sse({ type: "response.output_item.done", output_index: at, item })
    );
  }

  function call(made: ToolCall): string {
    const closed = close("completed");
    const at = output.length;
    const item = callItem(idOf("function_call"), made);
    output.push(item);
    const place = { item_id: item.id, output_index: at };
    return (
      closed +
      sse({
        type: "response.output_item.added",
        output_index: at,
        item: { ...item, arguments: "", status: "in_progress" },
      }) +
      sse({
        type: "response.function_call_arguments.delta",
        ...place,
        delta: item.arguments,
      }) +
      sse({
        type: "response.function_call_arguments.done",
        ...place,
        name: item.name,
        arguments: item.arguments,
      }) +
      sse({ type: "response.output_item.done", output_index: at, item })
    );
  }

  /** An answer without any words or calls is still an item, so that the next turn can repeat it. */
  const saysNothing = (): boolean =>
    open?.type !== "message" && output.every(({ type }) => type === "reasoning");

  return {
    whole([choice], usage): ResponsesAnswer {
      const { message, finishReason } = choice!;
      const status = finishReason === "length" ? "incomplete" : "completed";
      const { reasoning_content: thought, tool_calls: calls } = message;
      const text = messageText(message);
      if (thought)
        output.push(textItem({ type: "reasoning", id: idOf("reasoning"), text: thought }));
      if (text || !calls?.length) {
        output.push(textItem({ type: "message", id: idOf("message"), text }, status));
      }
      for (const made of calls ?? []) output.push(callItem(idOf("function_call"), made));
      return ended(blank, output, finishReason, usage);
    },

    event(event) {
      switch (event.type) {
        case "start":
          return (
            sse({ type: "response.created", response: blank }) +
            sse({ type: "response.in_progress", response: blank })
          );
        case "text-delta":
          return event.text && say("message", event.text);
        case "reasoning-delta":
          return say("reasoning", event.text);
        case "calls":
          return event.calls.map(call).join("");
        case "finish": {
          reason = event.reason;
          const begun = saysNothing() ? begin("message") : "";
          return begun + close(reason === "length" ? "incomplete" : "completed");
        }
        case "end": {
          const type = reason === "length" ? "response.incomplete" : "response.completed";
          return sse({ type, response: ended(blank, output, reason, event.usage) });
        }
        default: {
          const { error } = event.error.toEnvelope();
          const code = error.code ?? "internal_error";
          const { message, param } = error;
          const response: ResponsesAnswer = { ...blank, status: "failed" as const, output };
          return (
            sse({ type: "response.failed", response: { ...response, error: { code, message } } }) +
            sse({ type: "error", code, message, param, error })
          );
        }
      }
    },
  };
}

type Unnumbered = ResponsesEvent extends infer E
  ? E extends ResponsesEvent
    ? Omit<E, "sequence_number">
    : never
  : never;
type ItemStatus = ResponsesOutputItem["status"];

interface Said {
  type: "message" | "reasoning";
  id: string;
  text: string;
}

/** The item of a stream that is being told. */
interface Open extends Said {
  at: number;
}

function placeOf({ id, at }: Open) {
  return { item_id: id, output_index: at, content_index: 0 };
}

function outputText(text: string) {
  return { type: "output_text" as const, text, annotations: [], logprobs: [] };
}

function partOf(type: Said["type"], text: string) {
  return type === "message" ? outputText(text) : { type: "reasoning_text" as const, text };
}

function textItem({ type, id, text }: Said, status: ItemStatus = "completed"): ResponsesOutputItem {
  if (type === "message") {
    return { type, id, role: "assistant", status, content: [outputText(text)] };
  }
  return { type, id, status, summary: [], content: [{ type: "reasoning_text", text }] };
}

function callItem(id: string, { id: call_id, function: made }: ToolCall) {
  const { name, arguments: given } = made;
  const status: ItemStatus = "completed";
  return { type: "function_call" as const, id, call_id, name, arguments: given, status };
}

function ended(
  blank: ResponsesAnswer,
  output: ResponsesOutputItem[],
  reason: FinishReason,
  usage: Usage,
): ResponsesAnswer {
  const cut = reason === "length";
  return {
    ...blank,
    status: cut ? "incomplete" : "completed",
    incomplete_details: cut ? { reason: "max_output_tokens" } : null,
    output,
    usage: {
      input_tokens: usage.prompt_tokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: usage.completion_tokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: usage.total_tokens,
    },
  };
}

function blankAnswer(
  request: ResponsesRequest,
  { policy, ask, answerId, record }: PreparedAsk,
): ResponsesAnswer {
  return {
    id: responseIdOf(answerId, request),
    object: "response",
    created_at: createdNow(),
    status: "in_progress",
    background: false,
    error: null,
    incomplete_details: null,
    instructions: request.instructions ?? null,
    max_output_tokens: request.max_output_tokens ?? null,
    metadata: request.metadata ?? {},
    model: policy,
    output: [],
    parallel_tool_calls: request.parallel_tool_calls ?? true,
    previous_response_id: request.previous_response_id ?? null,
    reasoning: { effort: null, summary: null },
    store: record !== null && request.store !== false,
    temperature: ask.temperature,
    text: { format: request.text?.format ?? { type: "text" } },
    tool_choice: request.tool_choice ?? "auto",
    tools: request.tools ?? [],
    top_p: ask.topP,
    truncation: "disabled",
    usage: null,
  };
}
