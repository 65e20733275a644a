import { z } from "zod";
import { stopSchema } from "./chat.ts";
import { ignored, refused } from "./request-keys.ts";

/**
 * The subset of Anthropic's Messages that the gateway honours. Unknown keys inside blocks and tools are accepted
 * (`looseObject`); an unknown key of the request itself is a 400.
 */
const textBlockSchema = z.looseObject({ type: z.literal("text"), text: z.string() });

/** Blocks that Hone has no meaning for, by what to do about them. */
const unreadBlocks = {
  image: "models here read text only. Leave it out, or describe the image in a text block",
  document: "models here read text only. Send the document's text as a text block",
  search_result: "send its text as a text block",
  redacted_thinking: "only its provider can read it. Leave it out",
  container_upload: "there are no containers here. Leave it out",
} as const;

const unreadBlock = (issue: { input?: unknown }): string => {
  const { type } = (issue.input ?? {}) as { type?: unknown };
  const why = Object.entries(unreadBlocks).find(([name]) => name === type)?.[1];
  if (why !== undefined) return `${String(type)} blocks are not read: ${why}.`;
  if (typeof type !== "string") return "a block has a type, such as text.";
  return `${type.slice(0, 60)} blocks are not read here. Send text, tool_use, tool_result or thinking, each in its place.`;
};

const blocks = <
  T extends readonly [z.core.$ZodTypeDiscriminable, ...z.core.$ZodTypeDiscriminable[]],
>(
  options: T,
) => z.array(z.discriminatedUnion("type", options, { error: unreadBlock }));

const textContentSchema = z.union([z.string(), blocks([textBlockSchema])]);

const toolResultBlockSchema = z.looseObject({
  type: z.literal("tool_result"),
  tool_use_id: z.string(),
  content: textContentSchema.nullish(),
  is_error: z.boolean().nullish(),
});

const toolUseBlockSchema = z.looseObject({
  type: z.literal("tool_use"),
  id: z.string(),
  name: z.string(),
  input: z.record(z.string(), z.unknown()),
});

const thinkingBlockSchema = z.looseObject({
  type: z.literal("thinking"),
  thinking: z.string(),
  signature: z.string().nullish(),
});

const messagesTurnSchema = z.discriminatedUnion("role", [
  z.looseObject({
    role: z.literal("user"),
    content: z.union([z.string(), blocks([textBlockSchema, toolResultBlockSchema])]),
  }),
  z.looseObject({
    role: z.literal("assistant"),
    content: z.union([
      z.string(),
      blocks([textBlockSchema, toolUseBlockSchema, thinkingBlockSchema]),
    ]),
  }),
  z.looseObject({ role: z.literal("system"), content: textContentSchema }),
]);
export type MessagesTurn = z.infer<typeof messagesTurnSchema>;

const messagesToolSchema = z.looseObject({
  /** Tools with another type are run by Anthropic's own servers. */
  type: z.string().nullish(),
  name: z.string().min(1),
  description: z.string().nullish(),
  input_schema: z.record(z.string(), z.unknown()).nullish(),
  strict: z.boolean().nullish(),
});

const parallel = { disable_parallel_tool_use: z.boolean().nullish() };

/** What a prompt is made of: a request to count its tokens has nothing else. */
const promptKeys = {
  model: z.string().min(1),
  messages: z.array(messagesTurnSchema).min(1),
  system: textContentSchema.nullish(),
  tools: z.array(messagesToolSchema).nullish(),
  tool_choice: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("auto"), ...parallel }),
      z.strictObject({ type: z.literal("any"), ...parallel }),
      z.strictObject({ type: z.literal("tool"), name: z.string(), ...parallel }),
      z.strictObject({ type: z.literal("none") }),
    ])
    .nullish(),
  /** Whether a model thinks is settled when it is made. Thoughts are told where there are some. */
  thinking: z
    .strictObject({
      type: z.enum(["enabled", "adaptive", "disabled"]),
      budget_tokens: z.int().min(1).nullish(),
      display: z.literal("summarized").nullish(),
    })
    .nullish(),
  output_config: z
    .strictObject({
      format: z
        .strictObject({
          type: z.literal("json_schema"),
          schema: z.record(z.string(), z.unknown()),
        })
        .nullish(),
      effort: refused("Leave it out: an answer is as long as the model makes it."),
      task_budget: refused("Leave it out, and set max_tokens."),
    })
    .nullish(),
  cache_control: ignored,
  mcp_servers: refused(
    "Leave it out: run the MCP client in the agent, and send its tools as tools.",
  ),
  container: refused("Leave it out: run code in the agent, as a tool."),
  context_management: refused("Leave it out: the agent shortens its own history."),
};

export const countTokensRequestSchema = z.strictObject(promptKeys);
export type CountTokensRequest = z.infer<typeof countTokensRequestSchema>;

export const messagesRequestSchema = z.strictObject({
  ...promptKeys,
  max_tokens: z.int().min(1),
  stop_sequences: stopSchema.options[1].nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: refused("Leave it out, and use top_p: the engines here do not sample by rank."),
  stream: z.boolean().nullish(),
  thread: refused(
    "The server keeps no threads: send all messages so far. toolRunner does so by itself once this is refused, and " +
      "beta.messages.thread with unsupportedRequestBehavior: 'continue_unthreaded'.",
  ),
  metadata: ignored,
  service_tier: ignored,
  inference_geo: ignored,
});
export type MessagesRequest = z.infer<typeof messagesRequestSchema>;
