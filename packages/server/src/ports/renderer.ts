import type { ChatMessage, ChatTemplateKwargs, ChatTool } from "@hone/core";

/** Messages ⇄ token ids (docs/worker-contract.md). */
export interface Renderer {
  /**
   * The same renderer with these arguments of the chat template; null for its defaults. If the base's renderer
   * does not know one of them, its methods throw `invalid_request`.
   */
  withTemplate(kwargs: ChatTemplateKwargs | null): Renderer;
  info(): Promise<RendererInfo>;
  /** A whole conversation, with the generation prompt. Throws `invalid_request` for messages it cannot render. */
  render(messages: readonly ChatMessage[], tools: readonly ChatTool[] | null): Promise<number[]>;
  /** A whole conversation that is over: nothing is to follow its last message. Throws as `render` does. */
  conversation(
    messages: readonly ChatMessage[],
    tools: readonly ChatTool[] | null,
  ): Promise<number[]>;
  /**
   * The last message, which is the assistant's, as the model would have sampled it after the prompt of those before
   * it; the end token is the last id. Throws `invalid_request` for messages that cannot be rendered so.
   */
  answer(messages: readonly ChatMessage[], tools: readonly ChatTool[] | null): Promise<number[]>;
  /** The ids of a plain prompt, with no template and only what the tokenizer adds by itself. */
  encode(text: string): Promise<number[]>;
  /** The next prompt, which begins with prompt + completion token for token; or null with the reason. */
  bridge(
    promptIds: readonly number[],
    completionIds: readonly number[],
    newMessages: readonly ChatMessage[],
    tools: readonly ChatTool[] | null,
  ): Promise<{ ids: number[] } | { ids: null; reason: string }>;
  /**
   * Makes a message of what was sampled. Without `tools` a sampled call is text. If a stop string ended the
   * answer, `visible` is the text up to it; what was sampled after it is left out.
   */
  parse(
    completionIds: readonly number[],
    tools: readonly ChatTool[] | null,
    visible?: string,
  ): Promise<ParsedMessage>;
  /**
   * The JSON Schema in words that every engine knows. If no answer can be held to it, or if reading it takes
   * too long, throws `unsupported_parameter` and says what is not supported. (Some engines would ignore that
   * part in silence.)
   */
  checkSchema(schema: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>>;
  /**
   * The grammar of answers that call one of these tools, or several; with `final` an object of that schema may stand
   * in their place. Throws `unsupported_parameter` where the base writes calls in a way that no grammar is made for.
   */
  callGrammar(wanted: CallsWanted): Promise<string>;
  /** The strings and bytes of single tokens, for OpenAI's logprobs content. */
  tokens(ids: readonly number[]): Promise<{ token: string; bytes: number[] }[]>;
}

interface CallsWanted {
  tools: readonly ChatTool[];
  /** One call, not several. */
  single: boolean;
  /** As `checkSchema` gave it. */
  final: Readonly<Record<string, unknown>> | null;
}

export interface RendererInfo {
  /** The renderer in use: a family's own, or the chat template (`default`). */
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
   * The most characters that a token can stand for, where white space does not count and a character beyond
   * ASCII counts as a quarter. Null if it is not known.
   */
  longestToken: number | null;
  /** Text after which content may not be streamed before it is parsed. */
  markers: string[];
  /** What ends a call, and its id where it is a token; null where calls are not JSON between two marks. */
  callEnd: { text: string; id: number | null } | null;
}

interface ParsedMessage {
  content: string | null;
  reasoning: string | null;
  toolCalls: { name: string; arguments: string }[];
}
