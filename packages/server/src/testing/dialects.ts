import Anthropic from "@anthropic-ai/sdk";
import type { ChatTool } from "@hone/core";
import OpenAI from "openai";

/** An answer in no dialect. */
export interface Said {
  text: string;
  thought: string;
  calls: readonly { id: string; name: string; input: unknown }[];
  finish: "stop" | "length" | "calls";
  usage: { prompt: number; sampled: number };
  /** As its client got it, and sends it back. */
  own: unknown;
}

/** A part of a conversation in no dialect. */
export type Turn =
  | { role: "system" | "developer" | "user"; text: string }
  | { role: "tool"; call: string; text: string; failed?: boolean }
  | Said;

/** What a request wants besides its conversation, in no dialect. */
export interface Wish {
  tools?: readonly ChatTool["function"][];
  /** A name has to be called. */
  choice?: "auto" | "none" | "required" | { name: string };
  single?: boolean;
  schema?: Record<string, unknown>;
  stop?: string[];
  maxTokens?: number;
  temperature?: number;
  headers?: Record<string, string>;
  /** How much it shall think. No base has it. */
  effort?: "low";
}

/** A wire format as its published client speaks it. */
export interface Dialect {
  name: string;
  say(baseURL: string, turns: readonly Turn[], wish: Wish, streamed: boolean): Promise<Said>;
}

const isSaid = (turn: Turn): turn is Said => "own" in turn;
const failedText = ({ text, failed }: { text: string; failed?: boolean }) =>
  failed ? `Error: ${text}` : text;
const parsed = (text: string): unknown => JSON.parse(text);
const openai = (baseURL: string) =>
  new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: "k", maxRetries: 0 });
const schemaName = "it";

export const chat: Dialect = {
  name: "chat completions",
  async say(baseURL, turns, wish, streamed) {
    const { tools, choice, single, schema, stop, maxTokens = 100, temperature, headers } = wish;
    const messages = turns.map((turn): OpenAI.ChatCompletionMessageParam => {
      if (isSaid(turn)) return turn.own as OpenAI.ChatCompletionMessage;
      const content = failedText(turn);
      if (turn.role !== "tool") return { role: turn.role, content };
      return { role: "tool", tool_call_id: turn.call, content };
    });
    const body = {
      ...{ model: "m", messages, max_tokens: maxTokens },
      ...(tools && { tools: tools.map((made) => ({ type: "function" as const, function: made })) }),
      ...(choice && {
        tool_choice: typeof choice === "string" ? choice : { type: "function", function: choice },
      }),
      ...(single && { parallel_tool_calls: false }),
      ...(schema && {
        response_format: { type: "json_schema", json_schema: { name: schemaName, schema } },
      }),
      ...(stop && { stop }),
      ...(temperature !== undefined && { temperature }),
      ...(wish.effort && { reasoning_effort: wish.effort }),
    } as OpenAI.ChatCompletionCreateParamsNonStreaming;
    const completions = openai(baseURL).chat.completions;
    const { choices, usage } = streamed
      ? await completions
          .stream({ ...body, stream: true, stream_options: { include_usage: true } }, { headers })
          .finalChatCompletion()
      : await completions.create(body, { headers });
    const { message, finish_reason: finish } = choices[0]!;
    const thought = (message as { reasoning_content?: string }).reasoning_content;
    return {
      text: message.content ?? "",
      thought: thought ?? "",
      calls: (message.tool_calls ?? []).map((call) => {
        if (call.type !== "function") throw new Error(call.type);
        const { name, arguments: given } = call.function;
        return { id: call.id, name, input: parsed(given) };
      }),
      finish: finish === "tool_calls" ? "calls" : (finish as "stop" | "length"),
      usage: { prompt: usage!.prompt_tokens, sampled: usage!.completion_tokens },
      own: message,
    };
  },
};

type Item = OpenAI.Responses.ResponseInputItem;

/** `send`: how what was said before is named. */
function responses(
  name: string,
  send: (turns: readonly Turn[]) => { input: Item[]; previous_response_id?: string },
): Dialect {
  return {
    name,
    async say(baseURL, turns, wish, streamed) {
      const { tools, choice, single, schema, stop, maxTokens = 100, temperature, headers } = wish;
      if (stop) throw new Error("Responses have no stop strings");
      const body = {
        ...{ model: "m", max_output_tokens: maxTokens },
        ...send(turns),
        ...(tools && { tools: tools.map((made) => ({ type: "function" as const, ...made })) }),
        ...(choice && {
          tool_choice: typeof choice === "string" ? choice : { type: "function", ...choice },
        }),
        ...(single && { parallel_tool_calls: false }),
        ...(schema && { text: { format: { type: "json_schema", name: schemaName, schema } } }),
        ...(temperature !== undefined && { temperature }),
        ...(wish.effort && { reasoning: { effort: wish.effort } }),
      } as OpenAI.Responses.ResponseCreateParamsNonStreaming;
      const client = openai(baseURL).responses;
      const said = streamed
        ? await client.stream(body as never, { headers }).finalResponse()
        : await client.create(body, { headers });
      const calls = said.output.flatMap((item) =>
        item.type === "function_call"
          ? [{ id: item.call_id, name: item.name, input: parsed(item.arguments) }]
          : [],
      );
      const thoughts = said.output.flatMap((item) =>
        item.type === "reasoning" ? (item.content ?? []).map(({ text }) => text) : [],
      );
      return {
        text: said.output_text,
        thought: thoughts.join(""),
        calls,
        finish: said.status === "incomplete" ? "length" : calls.length > 0 ? "calls" : "stop",
        usage: { prompt: said.usage!.input_tokens, sampled: said.usage!.output_tokens },
        own: said,
      };
    },
  };
}

const answerOf = ({ own }: Said) => own as OpenAI.Responses.Response;

function itemsOf(turns: readonly Turn[], back: (said: Said) => Item[]): Item[] {
  return turns.flatMap((turn): Item[] => {
    if (isSaid(turn)) return back(turn);
    const said = failedText(turn);
    if (turn.role !== "tool") return [{ role: turn.role, content: said }];
    return [{ type: "function_call_output", call_id: turn.call, output: said }];
  });
}

const whole = (said: Said) => answerOf(said).output as Item[];

const messages: Dialect = {
  name: "Anthropic's Messages",
  async say(baseURL, turns, wish, streamed) {
    const { tools, choice, single, schema, stop, maxTokens = 100, temperature, headers } = wish;
    const system = turns.flatMap((turn) =>
      !isSaid(turn) && (turn.role === "system" || turn.role === "developer") ? [turn.text] : [],
    );
    const said: Anthropic.MessageParam[] = [];
    for (const turn of turns) {
      const last = said.at(-1);
      if (isSaid(turn)) {
        said.push({ role: "assistant", content: turn.own as Anthropic.ContentBlock[] });
      } else if (turn.role === "tool") {
        const { call: tool_use_id, text: content, failed = false } = turn;
        const result = { type: "tool_result" as const, tool_use_id, content, is_error: failed };
        if (last?.role === "user" && Array.isArray(last.content)) last.content.push(result);
        else said.push({ role: "user", content: [result] });
      } else if (turn.role === "user") {
        const block = { type: "text" as const, text: turn.text };
        if (last?.role === "user" && Array.isArray(last.content)) last.content.push(block);
        else said.push({ role: "user", content: [block] });
      }
    }
    const type = choice === "required" ? "any" : typeof choice === "object" ? "tool" : choice;
    const body = {
      ...{ model: "m", max_tokens: maxTokens, messages: said },
      ...(system.length > 0 && { system: system.join("\n\n") }),
      ...(tools && {
        tools: tools.map(({ name, description, parameters }) => ({
          ...{ name, description, input_schema: parameters as Anthropic.Tool.InputSchema },
        })),
      }),
      ...((choice || single) && {
        tool_choice: {
          type: type ?? "auto",
          ...(typeof choice === "object" && choice),
          ...(single && { disable_parallel_tool_use: true }),
        },
      }),
      ...(schema && { output_config: { format: { type: "json_schema", schema } } }),
      ...(stop && { stop_sequences: stop }),
      ...(temperature !== undefined && { temperature }),
      ...(wish.effort && { output_config: { effort: wish.effort } }),
    } as Anthropic.MessageCreateParamsNonStreaming;
    const client = new Anthropic({ baseURL, apiKey: "k", authToken: null, maxRetries: 0 }).messages;
    const {
      content,
      stop_reason: reason,
      usage,
    } = streamed
      ? await client.stream(body, { headers }).finalMessage()
      : await client.create(body, { headers });
    const join = (texts: (string | null)[]) => texts.filter((text) => text !== null).join("");
    return {
      text: join(content.map((block) => (block.type === "text" ? block.text : null))),
      thought: join(content.map((block) => (block.type === "thinking" ? block.thinking : null))),
      calls: content.flatMap((block) =>
        block.type === "tool_use" ? [{ id: block.id, name: block.name, input: block.input }] : [],
      ),
      finish: reason === "tool_use" ? "calls" : reason === "max_tokens" ? "length" : "stop",
      usage: { prompt: usage.input_tokens, sampled: usage.output_tokens },
      own: content,
    };
  },
};

/** Every dialect in which there are turns and tools. */
export const dialects: readonly Dialect[] = [
  chat,
  responses("Responses", (turns) => ({ input: itemsOf(turns, whole) })),
  messages,
];

/** The same, and the other ways in which Responses name what was said before. */
export const conversations: readonly Dialect[] = [
  ...dialects,
  responses("Responses by reference", (turns) => ({
    input: itemsOf(turns, (said) =>
      answerOf(said).output.map(({ id }) => ({ type: "item_reference", id: id! })),
    ),
  })),
  responses("Responses after one another", (turns) => {
    const last = turns.findLastIndex(isSaid);
    const said = turns[last];
    return {
      input: itemsOf(turns.slice(last + 1), whole),
      ...(said && isSaid(said) && { previous_response_id: answerOf(said).id }),
    };
  }),
];

/** A prompt that is continued. There are no turns in it, and nothing calls. */
export const plain: Dialect = {
  name: "completions",
  async say(baseURL, turns, { maxTokens = 100, stop, temperature, headers }, streamed) {
    const prompt = turns.map((turn) => turn.text).join("\n");
    const body = {
      ...{ model: "m", prompt, max_tokens: maxTokens },
      ...(stop && { stop }),
      ...(temperature !== undefined && { temperature }),
    };
    const { completions } = openai(baseURL);
    const told: OpenAI.Completion[] = [];
    if (streamed) {
      const asked = { ...body, stream: true as const, stream_options: { include_usage: true } };
      for await (const chunk of await completions.create(asked, { headers })) told.push(chunk);
    } else told.push(await completions.create(body, { headers }));
    const choices = told.flatMap((one) => one.choices);
    const usage = told.findLast((one) => one.usage)!.usage!;
    const text = choices.map((choice) => choice.text).join("");
    return {
      ...{ text, thought: "", calls: [], own: text },
      finish: choices.at(-1)!.finish_reason as "stop" | "length",
      usage: { prompt: usage.prompt_tokens, sampled: usage.completion_tokens },
    };
  },
};
