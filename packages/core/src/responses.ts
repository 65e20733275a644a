import { z } from "zod";
import { responseFormatSchema, streamOptionsSchema } from "./chat.ts";
import { ignored, refused } from "./request-keys.ts";

/**
 * The subset of OpenAI's Responses that the gateway honours. Unknown keys inside items and tools are accepted
 * (`looseObject`); an unknown key of the request itself is a 400.
 */

const unreadPart =
  "models here read text only: parts are input_text, output_text or refusal. Leave it out, or describe it in words.";
const partSchema = z.discriminatedUnion(
  "type",
  [
    z.looseObject({ type: z.enum(["input_text", "output_text", "text"]), text: z.string() }),
    z.looseObject({ type: z.literal("refusal"), refusal: z.string() }),
  ],
  { error: unreadPart },
);
const contentSchema = z.union([z.string(), z.array(partSchema)]);
export type ResponsesContent = z.infer<typeof contentSchema>;

const messageItemSchema = z.looseObject({
  type: z.literal("message").optional(),
  role: z.enum(["user", "assistant", "system", "developer"]),
  content: contentSchema,
});

const thoughtSchema = z.looseObject({ text: z.string() });

const unreadItem = (issue: { input?: unknown }): string => {
  const { type } = (issue.input ?? {}) as { type?: unknown };
  const name = typeof type === "string" ? type.slice(0, 60) : "an item without a type";
  return `${name} is not read here. Send message, reasoning, function_call, function_call_output or item_reference.`;
};

const itemSchema = z.union([
  messageItemSchema,
  z.discriminatedUnion(
    "type",
    [
      z.looseObject({
        type: z.literal("function_call"),
        call_id: z.string(),
        name: z.string(),
        arguments: z.string(),
      }),
      z.looseObject({
        type: z.literal("function_call_output"),
        call_id: z.string(),
        output: contentSchema,
      }),
      z.looseObject({
        type: z.literal("reasoning"),
        summary: z.array(thoughtSchema).nullish(),
        content: z.array(thoughtSchema).nullish(),
      }),
      /** An item of an earlier answer, by its id. */
      z.looseObject({ type: z.literal("item_reference"), id: z.string() }),
    ],
    { error: unreadItem },
  ),
]);
export type ResponsesItem = z.infer<typeof itemSchema>;

const toolSchema = z.looseObject({
  type: z.literal("function", {
    error: "only functions are called here. Run the tool in the agent, and send it as a function.",
  }),
  name: z.string().min(1),
  description: z.string().nullish(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
  strict: z.boolean().nullish(),
});
export type ResponsesTool = z.infer<typeof toolSchema>;

const namedToolSchema = z.strictObject({ type: z.literal("function"), name: z.string().min(1) });
/** As in chats, but names and modes stand one level higher. */
export const responsesToolChoiceSchema = z.union([
  z.enum(["auto", "none", "required"]),
  namedToolSchema,
  z.strictObject({
    type: z.literal("allowed_tools"),
    mode: z.enum(["auto", "required"]),
    tools: z.array(namedToolSchema).min(1),
  }),
]);

const jsonSchema = responseFormatSchema.options[2].shape.json_schema;

export const responsesRequestSchema = z.strictObject({
  model: z.string().min(1),
  input: z.union([z.string(), z.array(itemSchema).min(1)]),
  instructions: z.string().nullish(),
  tools: z.array(toolSchema).nullish(),
  tool_choice: responsesToolChoiceSchema.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z
    .strictObject({
      format: z
        .discriminatedUnion("type", [
          z.strictObject({ type: z.literal("text") }),
          z.strictObject({ type: z.literal("json_object") }),
          jsonSchema.extend({ type: z.literal("json_schema") }),
        ])
        .nullish(),
      verbosity: refused("Leave it out: an answer is as long as the model makes it."),
    })
    .nullish(),
  max_output_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema.omit({ include_usage: true }).nullish(),
  /** Thoughts are told where there are some, in the clear. */
  include: z
    .array(
      z.literal("reasoning.encrypted_content", {
        error: "only reasoning.encrypted_content is known here. Leave the others out.",
      }),
    )
    .nullish(),
  reasoning: z
    .strictObject({
      effort: refused("Leave it out: whether a model thinks is settled when it is made."),
      summary: z
        .literal("auto", { error: "thoughts are told whole. Leave it out, or send auto." })
        .nullish(),
    })
    .nullish(),
  truncation: z.enum(["auto", "disabled"]).nullish(),
  background: z.boolean().nullish(),
  previous_response_id: z.string().nullish(),
  conversation: refused(
    "Leave it out, and send previous_response_id, or the items so far as input.",
  ),
  prompt: refused("Leave it out, and send the prompt's text as instructions."),
  top_logprobs: refused("Ask /v1/chat/completions for logprobs."),
  max_tool_calls: refused("Leave it out: the agent runs the tools, and ends their loop."),
  metadata: z.record(z.string(), z.string()).nullish(),
  /** Whether later requests of the rollout may name the answer. */
  store: z.boolean().nullish(),
  user: ignored,
  service_tier: ignored,
  safety_identifier: ignored,
  prompt_cache_key: ignored,
  prompt_cache_retention: ignored,
  /** Codex says here who it is. */
  client_metadata: ignored,
});
export type ResponsesRequest = z.infer<typeof responsesRequestSchema>;
