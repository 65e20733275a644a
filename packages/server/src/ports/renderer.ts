import type { ChatMessage, ChatTemplateKwargs, ChatTool } from "@hone/core";

/** Messages ⇄ token ids (docs/worker-contract.md). */
export interface Renderer {
  /**
   * The same with these arguments of the chat template; null: its defaults. What it is asked throws
   * `invalid_request` where the base's renderer does not know one of them.
   */
  withTemplate(kwargs: ChatTemplateKwargs | null): Renderer;
  info(): Promise<RendererInfo>;
  /** A whole conversation, with the generation prompt. Throws `invalid_request` for messages it cannot render. */
  render(messages: readonly ChatMessage[], tools: readonly ChatTool[] | null): Promise<number[]>;
  /** A plain prompt's ids: no template, only what the tokenizer adds by itself. */
  encode(text: string): Promise<number[]>;
  /** The next prompt; begins with prompt + completion token for token, or null with the reason. */
  bridge(
    promptIds: readonly number[],
    completionIds: readonly number[],
    newMessages: readonly ChatMessage[],
    tools: readonly ChatTool[] | null,
  ): Promise<{ ids: number[] } | { ids: null; reason: string }>;
  /**
   * What was sampled, as a message. Without `tools` a sampled call is text. Where a stop string ended the
   * answer, `visible` is its text up to there: what was sampled behind it is left out.
   */
  parse(
    completionIds: readonly number[],
    tools: readonly ChatTool[] | null,
    visible?: string,
  ): Promise<ParsedMessage>;
  /**
   * The JSON Schema in words that every engine knows. Throws `unsupported_parameter` for one that no answer can
   * be held to, or that takes too long to read, and says what of it is not supported: some engines would leave
   * that out in silence.
   */
  checkSchema(schema: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>>;
  /** Strings and bytes of single tokens, for OpenAI's logprobs content. */
  tokens(ids: readonly number[]): Promise<{ token: string; bytes: number[] }[]>;
}

export interface RendererInfo {
  /** The renderer that was taken: a family's own, or the chat template (`default`). */
  name: string;
  /** Who writes tools, calls and results: the template, the documented convention around it, or none. */
  tools: "template" | "convention" | "none";
  /** Whether a control token that a text spells stays text. */
  plainTexts: boolean;
  stopTokenIds: number[];
  bridges: boolean;
  maxModelLen: number;
  vocabSize: number;
  /**
   * A token stands for no more characters of a text, white space not counted and one beyond ASCII for a quarter.
   * Null: not known.
   */
  longestToken: number | null;
  /** Text after which content may not be streamed before it is parsed. */
  markers: string[];
}

export interface ParsedMessage {
  content: string | null;
  reasoning: string | null;
  toolCalls: { name: string; arguments: string }[];
}
