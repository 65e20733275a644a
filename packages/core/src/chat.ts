import { z } from "zod";
import { ignored } from "./request-keys.ts";

/**
 * The subset of OpenAI's chat dialect that the gateway honours. Unknown keys inside messages and tools are kept
 * (`looseObject`); an unknown key of the request itself is a 400.
 */
const textPartSchema = z.looseObject({ type: z.literal("text"), text: z.string() });

const messageContentSchema = z.union([z.string(), z.array(textPartSchema)]);

/** What an assistant says instead of an answer. For the policy it is an answer like any other. */
const refusalPartSchema = z.looseObject({ type: z.literal("refusal"), refusal: z.string() });
const assistantPartSchema = z.discriminatedUnion("type", [textPartSchema, refusalPartSchema]);
const assistantContentSchema = z.union([z.string(), z.array(assistantPartSchema)]);

export const toolCallSchema = z.looseObject({
  id: z.string(),
  type: z.literal("function"),
  function: z.looseObject({ name: z.string(), arguments: z.string() }),
});
export type ToolCall = z.infer<typeof toolCallSchema>;

export const systemMessageSchema = z.looseObject({
  role: z.enum(["system", "developer"]),
  content: messageContentSchema,
});
export const userMessageSchema = z.looseObject({
  role: z.literal("user"),
  content: messageContentSchema,
});
/** Forms of an answer that nothing here reads. As unknown keys they would be kept, and their content lost. */
const unread = (instead: string) => z.null({ error: `is not read. ${instead}` }).optional();

export const assistantMessageSchema = z.looseObject({
  role: z.literal("assistant"),
  content: assistantContentSchema.nullish(),
  /** The same outside of the content, as OpenAI answers with it. */
  refusal: z.string().nullish(),
  tool_calls: z.array(toolCallSchema).nullish(),
  reasoning_content: z.string().nullish(),
  function_call: unread("Send it as an entry of tool_calls."),
  audio: unread("Send its transcript as content."),
});
export const toolMessageSchema = z.looseObject({
  role: z.literal("tool"),
  tool_call_id: z.string(),
  content: messageContentSchema,
});
export const messageSchema = z.discriminatedUnion("role", [
  systemMessageSchema,
  userMessageSchema,
  assistantMessageSchema,
  toolMessageSchema,
]);
export type ChatMessage = z.infer<typeof messageSchema>;
export type AssistantMessage = z.infer<typeof assistantMessageSchema>;

/** What a message says in words: its text, whose parts are joined, and a refusal. */
export function messageText(message: Pick<AssistantMessage, "content" | "refusal">): string {
  const { content, refusal } = message;
  const text =
    typeof content === "string"
      ? content
      : (content ?? []).map((p) => (p.type === "refusal" ? p.refusal : p.text)).join("");
  return text + (refusal ?? "");
}

export const toolSchema = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
    strict: z.boolean().nullish(),
  }),
});
export type ChatTool = z.infer<typeof toolSchema>;

export const streamOptionsSchema = z.strictObject({
  include_usage: z.boolean().nullish(),
  include_obfuscation: z.boolean().nullish(),
});

export const stopSchema = z.union([z.string().min(1), z.array(z.string().min(1)).max(16)]);

/** Enough for a judge or an extractor. Compiling a longer schema would hold up the request. */
const longestSchema = 64 * 1024;

/** What an answer is held to: nothing, any JSON object, or a JSON Schema. */
export const responseFormatSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    json_schema: z.strictObject({
      name: z
        .string()
        .regex(
          /^[A-Za-z0-9_-]{1,64}$/,
          "a name has 1 to 64 letters, digits, dashes and underscores",
        ),
      description: z.string().nullish(),
      schema: z
        .record(z.string(), z.unknown())
        .refine((schema) => JSON.stringify(schema).length <= longestSchema, {
          error: `a schema has at most ${longestSchema} characters of JSON`,
        }),
      /** Answers are held to the schema whatever it says. */
      strict: z.boolean().nullish(),
    }),
  }),
]);

const namedToolSchema = z.strictObject({
  type: z.literal("function"),
  function: z.strictObject({ name: z.string().min(1) }),
});

/** Whether the answer has to call, and which tools it may call. */
const toolChoiceSchema = z.union([
  z.enum(["auto", "none", "required"]),
  namedToolSchema,
  z.strictObject({
    type: z.literal("allowed_tools"),
    allowed_tools: z.strictObject({
      mode: z.enum(["auto", "required"]),
      tools: z.array(namedToolSchema).min(1),
    }),
  }),
]);

/** Accepted and without effect: they change nothing about what is sampled. */
export const ignoredChatKeys = [
  "user",
  "metadata",
  "store",
  "service_tier",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_retention",
] as const;

export const chatRequestSchema = z.strictObject({
  model: z.string().min(1),
  messages: z.array(messageSchema).min(1),
  tools: z.array(toolSchema).nullish(),
  tool_choice: toolChoiceSchema.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  n: z.int().min(1).max(64).nullish(),
  stop: stopSchema.nullish(),
  seed: z.int().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema.nullish(),
  frequency_penalty: z.literal(0).nullish(),
  presence_penalty: z.literal(0).nullish(),
  logit_bias: z.strictObject({}).nullish(),
  response_format: responseFormatSchema.nullish(),
  user: ignored,
  metadata: ignored,
  store: ignored,
  service_tier: ignored,
  safety_identifier: ignored,
  prompt_cache_key: ignored,
  prompt_cache_retention: ignored,
});
export type ChatRequest = z.infer<typeof chatRequestSchema>;
