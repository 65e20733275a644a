import { z } from "zod";

/** What the gateway answers in Anthropic's Messages. `model` is the policy sampled from, as `name@N`. */
const contentBlockSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text"), text: z.string() }),
  z.object({ type: z.literal("thinking"), thinking: z.string(), signature: z.string() }),
  z.object({
    type: z.literal("tool_use"),
    id: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
  }),
]);
export type MessagesBlock = z.infer<typeof contentBlockSchema>;

const stopReasonSchema = z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use"]);
export type MessagesStopReason = z.infer<typeof stopReasonSchema>;

const messagesUsageSchema = z.object({
  input_tokens: z.int(),
  output_tokens: z.int(),
  /** Nothing is billed, so nothing is cached as far as this count goes: `input_tokens` is the whole prompt. */
  cache_creation_input_tokens: z.literal(0),
  cache_read_input_tokens: z.literal(0),
});

export const messagesAnswerSchema = z.object({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  content: z.array(contentBlockSchema),
  stop_reason: stopReasonSchema.nullable(),
  /** Which of the request's `stop_sequences` ended the answer. */
  stop_sequence: z.string().nullable(),
  usage: messagesUsageSchema,
});
export type MessagesAnswer = z.infer<typeof messagesAnswerSchema>;

/** `{type: "error", error: {type, message}, request_id}`, as Anthropic sends it, with Hone's own code beside. */
export const anthropicErrorSchema = z.object({
  type: z.literal("error"),
  error: z.object({
    type: z.string(),
    message: z.string(),
    code: z.string(),
    param: z.string().nullable(),
    /** Of a refused `thread`, by which clients know that they are to go on without one. */
    details: z
      .object({
        error_code: z.literal("thread_unsupported_request"),
        unsupported: z.array(z.string()),
      })
      .optional(),
  }),
  request_id: z.string().nullable(),
});
export type AnthropicError = z.infer<typeof anthropicErrorSchema>;

const deltaSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text_delta"), text: z.string() }),
  z.object({ type: z.literal("thinking_delta"), thinking: z.string() }),
  z.object({ type: z.literal("signature_delta"), signature: z.string() }),
  z.object({ type: z.literal("input_json_delta"), partial_json: z.string() }),
]);

/** One event of a stream. Its name is its `type`. */
export const messagesEventSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("message_start"), message: messagesAnswerSchema }),
  z.object({ type: z.literal("ping") }),
  z.object({
    type: z.literal("content_block_start"),
    index: z.int(),
    content_block: contentBlockSchema,
  }),
  z.object({ type: z.literal("content_block_delta"), index: z.int(), delta: deltaSchema }),
  z.object({ type: z.literal("content_block_stop"), index: z.int() }),
  z.object({
    type: z.literal("message_delta"),
    delta: z.object({
      stop_reason: stopReasonSchema,
      stop_sequence: z.string().nullable(),
    }),
    usage: messagesUsageSchema,
  }),
  z.object({ type: z.literal("message_stop") }),
  anthropicErrorSchema,
]);
export type MessagesEvent = z.infer<typeof messagesEventSchema>;

export const tokenCountSchema = z.object({ input_tokens: z.int() });
export type TokenCount = z.infer<typeof tokenCountSchema>;

/** An entry of `GET /v1/models` for a client that sends `anthropic-version`. */
export const anthropicModelSchema = z.object({
  type: z.literal("model"),
  id: z.string(),
  display_name: z.string(),
  created_at: z.string(),
});
export type AnthropicModel = z.infer<typeof anthropicModelSchema>;
