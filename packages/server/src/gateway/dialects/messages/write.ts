import { createHash } from "node:crypto";
import type {
  FinishReason,
  MessagesAnswer,
  MessagesBlock,
  MessagesEvent,
  MessagesStopReason,
  ToolCall,
} from "@hone/core";
import { anthropicError } from "../../../http/anthropic-error.ts";
import type { Writer } from "../../answer-events.ts";
import type { PreparedAsk } from "../../prepare.ts";

/** Anthropic's `message`, and the events of its stream. */
export function writeMessages(_request: unknown, prepared: PreparedAsk, requestId: string): Writer {
  const id = prepared.answerId.replace(/^cmpl_/, "msg_");
  const input = prepared.engineRequest.prompt.length;
  const blocks = createBlocks();
  let ending: Ending = { stop_reason: "end_turn", stop_sequence: null };

  return {
    whole([choice], { completion_tokens: output }): MessagesAnswer {
      const { message, finishReason, stopString } = choice!;
      const { content, reasoning_content: reasoning, tool_calls: calls } = message;
      return {
        ...answer(id, prepared.policy, usage(input, output)),
        content: [
          ...(reasoning ? [thinking(reasoning, signatureOf(reasoning))] : []),
          ...(typeof content === "string" && content ? [text(content)] : []),
          ...(calls ?? []).map((made) => toolUse(made, JSON.parse(made.function.arguments))),
        ],
        ...endingOf(finishReason, stopString),
      };
    },

    event(event) {
      switch (event.type) {
        case "start":
          return (
            sse({ type: "message_start", message: answer(id, prepared.policy, usage(input, 0)) }) +
            sse({ type: "ping" })
          );
        case "text-delta":
          return event.text && blocks.text(event.text);
        case "reasoning-delta":
          return blocks.thinking(event.text);
        case "calls":
          return event.calls.map((made) => blocks.call(made)).join("");
        case "finish":
          ending = endingOf(event.reason, event.stopString);
          return blocks.close();
        case "end": {
          const { completion_tokens: output } = event.usage;
          return (
            sse({ type: "message_delta", delta: ending, usage: usage(input, output) }) +
            sse({ type: "message_stop" })
          );
        }
        default:
          return sse(anthropicError(event.error, requestId));
      }
    },
  };
}

interface Ending {
  stop_reason: MessagesStopReason;
  stop_sequence: string | null;
}

function endingOf(reason: FinishReason, stopString: string | null | undefined): Ending {
  if (reason === "tool_calls") return { stop_reason: "tool_use", stop_sequence: null };
  if (reason === "length") return { stop_reason: "max_tokens", stop_sequence: null };
  if (stopString == null) return { stop_reason: "end_turn", stop_sequence: null };
  return { stop_reason: "stop_sequence", stop_sequence: stopString };
}

/** The content of a stream: one block is open at a time, and each kind of text opens its own. */
function createBlocks() {
  let index = -1;
  let open: "text" | "thinking" | "tool_use" | null = null;
  let thought = "";

  function begin(block: MessagesBlock): string {
    const closed = close();
    index++;
    open = block.type;
    return closed + sse({ type: "content_block_start", index, content_block: block });
  }

  function delta(said: Extract<MessagesEvent, { type: "content_block_delta" }>["delta"]): string {
    return sse({ type: "content_block_delta", index, delta: said });
  }

  function close(): string {
    if (open === null) return "";
    const signed =
      open === "thinking"
        ? delta({ type: "signature_delta", signature: signatureOf(thought) })
        : "";
    open = null;
    return signed + sse({ type: "content_block_stop", index });
  }

  return {
    close,
    text(said: string): string {
      const begun = open === "text" ? "" : begin(text(""));
      return begun + delta({ type: "text_delta", text: said });
    },
    thinking(said: string): string {
      const begun = open === "thinking" ? "" : begin(thinking("", ""));
      thought = begun ? said : thought + said;
      return begun + delta({ type: "thinking_delta", thinking: said });
    },
    call(made: ToolCall): string {
      return (
        begin(toolUse(made, {})) +
        delta({ type: "input_json_delta", partial_json: made.function.arguments }) +
        close()
      );
    },
  };
}

function answer(id: string, model: string, used: MessagesAnswer["usage"]): MessagesAnswer {
  return {
    id,
    type: "message",
    role: "assistant",
    model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: used,
  };
}

function usage(input: number, output: number): MessagesAnswer["usage"] {
  return {
    input_tokens: input,
    output_tokens: output,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
  };
}

function text(said: string): MessagesBlock {
  return { type: "text", text: said };
}

function thinking(said: string, signature: string): MessagesBlock {
  return { type: "thinking", thinking: said, signature };
}

/** The parser leaves calls whose arguments are no object in the text, so the input always is one. */
function toolUse({ id, function: { name } }: ToolCall, given: unknown): MessagesBlock {
  return { type: "tool_use", id, name, input: given as Record<string, unknown> };
}

/** Clients send thoughts back only where they are signed. Nothing here is secret: a thought is known by its text. */
function signatureOf(thought: string): string {
  return createHash("sha256").update(thought).digest("base64");
}

function sse(event: MessagesEvent): string {
  return `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
