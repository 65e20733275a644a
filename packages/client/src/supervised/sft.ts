import { conversationSchema, issueText, sftConfigSchema, trajectorySchema } from "@hone/core";
import type { Conversation, Example, SftConfig, Trajectory } from "@hone/core";
import { unusable } from "./examples-source.ts";
import type { ExamplesOf } from "./examples-source.ts";
import { parsedOptions } from "../training/parsed-options.ts";
import type { RunOptions } from "./run-options.ts";
import type { Learning } from "./supervised-run.ts";

/** What `model.sft` takes: conversations, or trajectories of a run. */
export type SftExample = Conversation | Trajectory;
export type SftExamples = ExamplesOf<SftExample>;

export interface SftOptions extends SftConfig, RunOptions<SftExample> {}

export const imitation: Learning<Example> = {
  type: "sft",
  where: "sft()",
  stepNames: Object.keys(sftConfigSchema.shape),
  check: (options) => parsedOptions("sft()", sftConfigSchema.safeParse(options)),
  read: readExample,
};

/**
 * A trajectory that Hone sampled is named by its rollout: the server trains the very ids that were sampled. All
 * else is rendered by the model's template.
 */
function readExample(value: unknown, place: string): Example {
  if (typeof value === "object" && value !== null && "histories" in value) {
    const trajectory = trajectorySchema.safeParse(value);
    if (!trajectory.success) {
      throw unusable("example", place, issueText(trajectory.error, "it"), trajectory.error);
    }
    const { rolloutId, messages, tools } = trajectory.data;
    return rolloutId === null ? readConversation({ messages, tools }, place) : { rolloutId };
  }
  return readConversation(value, place);
}

function readConversation(value: unknown, place: string): Conversation {
  const parsed = conversationSchema.safeParse(value);
  if (!parsed.success)
    throw unusable("example", place, issueText(parsed.error, "it"), parsed.error);
  const { messages } = parsed.data;
  const trains = messages.some(
    (message, at) => at > 0 && message.role === "assistant" && message.weight !== 0,
  );
  if (trains) return parsed.data;
  throw unusable(
    "example",
    place,
    "no assistant message follows another message with a weight other than 0, so there is nothing to learn",
  );
}
