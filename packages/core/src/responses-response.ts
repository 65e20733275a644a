import { z } from "zod";
import { responsesToolChoiceSchema } from "./responses.ts";

/** What the gateway answers in OpenAI's Responses. `model` is the policy sampled from, as `name@N`. */
const itemStatusSchema = z.enum(["in_progress", "completed", "incomplete"]);

const outputTextSchema = z.object({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(z.never()),
  logprobs: z.array(z.never()),
});
const reasoningTextSchema = z.object({ type: z.literal("reasoning_text"), text: z.string() });

const outputItemSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("message"),
    id: z.string(),
    role: z.literal("assistant"),
    status: itemStatusSchema,
    content: z.array(outputTextSchema),
  }),
  z.object({
    type: z.literal("reasoning"),
    id: z.string(),
    status: itemStatusSchema,
    summary: z.array(z.never()),
    content: z.array(reasoningTextSchema),
  }),
  z.object({
    type: z.literal("function_call"),
    id: z.string(),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    status: itemStatusSchema,
  }),
]);
export type ResponsesOutputItem = z.infer<typeof outputItemSchema>;

export const responsesAnswerSchema = z.object({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.int(),
  status: z.enum(["in_progress", "completed", "incomplete", "failed"]),
  background: z.literal(false),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.object({ reason: z.literal("max_output_tokens") }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullable(),
  metadata: z.record(z.string(), z.string()),
  model: z.string(),
  output: z.array(outputItemSchema),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.string().nullable(),
  reasoning: z.object({ effort: z.null(), summary: z.null() }),
  store: z.boolean(),
  temperature: z.number(),
  text: z.object({ format: z.record(z.string(), z.unknown()) }),
  tool_choice: responsesToolChoiceSchema,
  tools: z.array(z.record(z.string(), z.unknown())),
  top_p: z.number(),
  truncation: z.literal("disabled"),
  usage: z
    .object({
      input_tokens: z.int(),
      input_tokens_details: z.object({ cached_tokens: z.literal(0) }),
      /** Tokens of thoughts among them, which are not counted apart. */
      output_tokens: z.int(),
      output_tokens_details: z.object({ reasoning_tokens: z.literal(0) }),
      total_tokens: z.int(),
    })
    .nullable(),
});
export type ResponsesAnswer = z.infer<typeof responsesAnswerSchema>;

const numbered = { sequence_number: z.int() };
const atItem = { ...numbered, item_id: z.string(), output_index: z.int() };
const atPart = { ...atItem, content_index: z.int() };

/** One event of a stream. Its name is its `type`. */
export const responsesEventSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.enum([
      "response.created",
      "response.in_progress",
      "response.completed",
      "response.incomplete",
      "response.failed",
    ]),
    ...numbered,
    response: responsesAnswerSchema,
  }),
  z.object({
    type: z.enum(["response.output_item.added", "response.output_item.done"]),
    ...numbered,
    output_index: z.int(),
    item: outputItemSchema,
  }),
  z.object({
    type: z.enum(["response.content_part.added", "response.content_part.done"]),
    ...atPart,
    part: z.discriminatedUnion("type", [outputTextSchema, reasoningTextSchema]),
  }),
  z.object({
    type: z.literal("response.output_text.delta"),
    ...atPart,
    delta: z.string(),
    logprobs: z.array(z.never()),
  }),
  z.object({
    type: z.literal("response.output_text.done"),
    ...atPart,
    text: z.string(),
    logprobs: z.array(z.never()),
  }),
  z.object({ type: z.literal("response.reasoning_text.delta"), ...atPart, delta: z.string() }),
  z.object({ type: z.literal("response.reasoning_text.done"), ...atPart, text: z.string() }),
  z.object({
    type: z.literal("response.function_call_arguments.delta"),
    ...atItem,
    delta: z.string(),
  }),
  z.object({
    type: z.literal("response.function_call_arguments.done"),
    ...atItem,
    name: z.string(),
    arguments: z.string(),
  }),
  /** After `response.failed`. openai-node throws what stands in `error`. */
  z.object({
    type: z.literal("error"),
    ...numbered,
    code: z.string(),
    message: z.string(),
    param: z.string().nullable(),
    error: z.record(z.string(), z.unknown()),
  }),
]);
export type ResponsesEvent = z.infer<typeof responsesEventSchema>;
