import {
  type ChatMessage,
  type ChatTool,
  type CountTokensRequest,
  type MessagesRequest,
  type MessagesTurn,
} from "@hone/core";
import type { JsonFormat } from "../../../ports/engine.ts";
import type { ChatAsk } from "../../ask.ts";
import { refusal } from "../openai.ts";
import { readCalls, type CallWish } from "../tool-choice.ts";

/** `POST /v1/messages`. What its schema cannot say is checked here. */
export function readMessages(request: MessagesRequest): ChatAsk {
  return {
    ...readPrompt(request),
    n: 1,
    maxTokens: request.max_tokens,
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    seed: null,
    stop: request.stop_sequences ?? [],
    logprobs: null,
    stream: request.stream === true,
  };
}

type PromptAsk = Pick<
  ChatAsk,
  "kind" | "param" | "model" | "messages" | "tools" | "callable" | "mustCall" | "oneCall" | "format"
>;

/** What decides the prompt's tokens: the same for an answer and for a count. */
export function readPrompt(request: CountTokensRequest | MessagesRequest): PromptAsk {
  if (request.messages.at(-1)?.role === "assistant") {
    throw refusal(
      "messages",
      "the last one is the assistant's, and answers are not begun by the caller. End with a user's message.",
    );
  }
  const system: ChatMessage[] = request.system
    ? [{ role: "system", content: joined(request.system) }]
    : [];
  return {
    kind: "chat",
    param: "messages",
    model: request.model,
    messages: [...system, ...request.messages.flatMap(readTurn)],
    ...readCalls(callsOf(request)),
    format: formatOf(request),
  };
}

function callsOf({ tools, tool_choice: choice }: CountTokensRequest): CallWish {
  return {
    tools: tools?.length ? tools.map(readTool) : null,
    choice:
      !choice || choice.type === "auto" ? "auto" : choice.type === "none" ? "none" : "required",
    only: choice?.type === "tool" ? [choice.name] : null,
    // A named tool is one call, unless several are asked for.
    single:
      choice != null &&
      choice.type !== "none" &&
      (choice.disable_parallel_tool_use ?? choice.type === "tool"),
    param: "tool_choice",
  };
}

type GivenTool = NonNullable<CountTokensRequest["tools"]>[number];

function readTool(tool: GivenTool, index: number): ChatTool {
  const where = `tools[${index}]`;
  if (tool.type != null && tool.type !== "custom") {
    throw refusal(
      `${where}.type`,
      `"${tool.type.slice(0, 60)}" is run by Anthropic's servers, and here only the agent runs tools. ` +
        "Send it with an input_schema and no type, and run it in the agent.",
    );
  }
  if (tool.input_schema == null) {
    throw refusal(`${where}.input_schema`, "a tool needs one. Send a JSON Schema.");
  }
  for (const key of ["defer_loading", "input_examples"]) {
    if (tool[key]) throw refusal(`${where}.${key}`, "every tool is shown as it is. Leave it out.");
  }
  const { name, description, input_schema: parameters, strict } = tool;
  return {
    type: "function",
    function: {
      name,
      ...(description != null && { description }),
      parameters,
      ...(strict != null && { strict }),
    },
  };
}

/** Anthropic's turns hold what in a chat are several messages: each result of a tool is one of its own. */
function readTurn(turn: MessagesTurn, index: number): ChatMessage[] {
  if (turn.role === "assistant") return [readAnswer(turn.content)];
  if (turn.role === "system") return [{ role: "system", content: joined(turn.content) }];
  const { content } = turn;
  if (typeof content === "string") return [{ role: "user", content }];
  const results: ChatMessage[] = [];
  const texts: { text: string }[] = [];
  for (const [at, block] of content.entries()) {
    if (block.type === "text") {
      texts.push(block);
      continue;
    }
    if (texts.length > 0) {
      throw refusal(
        `messages[${index}].content[${at}]`,
        "results of tools stand before all text of their message. Move it to the front.",
      );
    }
    const said = joined(block.content ?? "");
    // A chat has no mark for a failed call but its words.
    const failed = block.is_error === true && !/^\W*error\b/i.test(said);
    results.push({
      role: "tool",
      tool_call_id: block.tool_use_id,
      content: failed ? (said ? `Error: ${said}` : "Error") : said,
    });
  }
  if (texts.length === 0 && results.length > 0) return results;
  return [...results, { role: "user", content: joined(texts) }];
}

/** The answer as it was recorded: whatever the order of its blocks, its texts are one text. */
function readAnswer(content: Extract<MessagesTurn, { role: "assistant" }>["content"]): ChatMessage {
  if (typeof content === "string") return { role: "assistant", content };
  const text = content.map((block) => (block.type === "text" ? block.text : "")).join("");
  const reasoning = content
    .map((block) => (block.type === "thinking" ? block.thinking : ""))
    .join("");
  const calls = content.flatMap((block) => {
    if (block.type !== "tool_use") return [];
    const { id, name, input } = block;
    return [
      { id, type: "function" as const, function: { name, arguments: JSON.stringify(input) } },
    ];
  });
  return {
    role: "assistant",
    content: text || (calls.length > 0 ? null : ""),
    ...(calls.length > 0 && { tool_calls: calls }),
    ...(reasoning && { reasoning_content: reasoning }),
  };
}

/** Blocks are paragraphs: SDKs put what a program said in several messages into one, block by block. */
function joined(content: string | readonly { text: string }[]): string {
  if (typeof content === "string") return content;
  return content.map(({ text }) => text).join("\n\n");
}

function formatOf({ output_config: wanted }: CountTokensRequest): JsonFormat | null {
  return wanted?.format ? { type: "json_schema", schema: wanted.format.schema } : null;
}
