import { z } from "zod";
import { messageSchema, toolSchema } from "./chat.ts";

/** An assistant message of a conversation as it was sampled, before it was parsed. */
export const turnSchema = z.object({
  /** The completion that it came from, as `completions` of a trajectory names it. Older records have none. */
  id: z.string().optional(),
  /** Its place in `messages`. */
  message: z.int(),
  /**
   * Everything that the model wrote, without the token that ends its turn: thoughts with their tags, tool calls in
   * the base's own notation. If the template opens the answer with `<think>`, the text begins with that. Null: the
   * text is not known.
   */
  text: z.string().nullable(),
  /** Why it ended, in OpenAI's words; `length` means that it was cut. Null: the provider did not say. */
  finish_reason: z.string().nullable(),
});
export type Turn = z.infer<typeof turnSchema>;

const givenNumber = (what: string) => z.number({ error: `${what} is a finite number` });

/** How one completion is trained, where that is not what its rollout's reward says. */
const completionTrainingSchema = z
  .strictObject({
    /** False: it is context for those that train. @default true */
    trainable: z.boolean().optional(),
    /** Each of its tokens counts as so many. @default 1 */
    weight: givenNumber("a weight").gt(0).max(1000).optional(),
    /** Compared with the group in place of the rollout's reward; mean and deviation of the group stay. */
    reward: givenNumber("a reward").optional(),
    /** Taken as it is, in place of what rewards would give. */
    advantage: givenNumber("an advantage").optional(),
  })
  .refine(({ reward, advantage }) => reward === undefined || advantage === undefined, {
    error: "give a reward or an advantage, not both",
  })
  .refine(
    ({ trainable, ...rest }) =>
      trainable !== false || Object.values(rest).every((value) => value === undefined),
    { error: "a completion that is not trainable takes no weight, reward or advantage" },
  );
export type CompletionTraining = z.infer<typeof completionTrainingSchema>;

/** By a turn's `id`, or by the `id` of the response that the agent got. */
export const completionsTrainingSchema = z.record(z.string().max(128), completionTrainingSchema);

/**
 * What a rollout leaves for the user, as plain readonly data. `messages` is the longest conversation of the
 * rollout. Further conversations, which do not continue it, stand in `histories`.
 */
export const trajectorySchema = z.object({
  rolloutId: z.string().nullable(),
  model: z.string().nullable(),
  /** The policy `name@N` that all its completions were sampled from. Null if Hone did not sample them. */
  policy: z.string().nullable(),
  messages: z.array(messageSchema),
  tools: z.array(toolSchema).nullable(),
  /** The assistant messages that were sampled in this rollout, in order. Older records have none. */
  turns: z.array(turnSchema).optional(),
  histories: z.array(
    z.object({
      messages: z.array(messageSchema),
      tools: z.array(toolSchema).nullable(),
      turns: z.array(turnSchema).optional(),
    }),
  ),
  reward: z.number().nullable(),
  /** Completions that are trained in another way than the reward says. Absent: none. */
  completions: completionsTrainingSchema.optional(),
  metrics: z.record(z.string(), z.number()),
  metadata: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
  logs: z.array(z.string()),
  usage: z.object({
    completions: z.int(),
    promptTokens: z.int(),
    completionTokens: z.int(),
    /** Completions that train only with `allowConstrained`: temperature 0, top_p < 1, a grammar. Absent: none. */
    constrained: z.int().optional(),
    /**
     * What constrained them, each once. `tool_choice` stands for every grammar of a request that has tools, also for
     * that of a `response_format` beside them. Absent: nothing, or an older record.
     */
    constrainedBy: z
      .array(z.enum(["temperature", "top_p", "response_format", "tool_choice"]))
      .optional(),
    /** Turns that could not extend an earlier one, because the history had changed. Absent: none. */
    splits: z
      .object({
        /** How many, by reason. */
        reasons: z.partialRecord(
          z.enum(["edited_history", "tools_changed", "cannot_bridge"]),
          z.int(),
        ),
        /** Tokens of their prompts that say once more what was read before; an estimate. */
        tokensAgain: z.int(),
      })
      .optional(),
    /** Tokens of its sequences, where what turns share counts once. Absent in older records and of other APIs. */
    sequenceTokens: z.int().optional(),
  }),
  startedAt: z.number(),
  durationMs: z.number(),
});
export type Trajectory = z.infer<typeof trajectorySchema>;

export const rolloutExceptionSchema = z.object({
  rolloutId: z.string().nullable(),
  type: z.string(),
  message: z.string(),
  /** The number of the model request that it was in, from 1. Null if it was in none. */
  duringCall: z.int().nullable(),
  /** Where it was thrown, as Node shows it, with its causes. Absent if there is nothing to show. */
  stack: z.string().optional(),
});
export type RolloutException = z.infer<typeof rolloutExceptionSchema>;

/** Trajectories of one scenario, compared with one another. */
export const groupSchema = z.object({
  id: z.string(),
  scenario: z.unknown().optional(),
  trajectories: z.array(trajectorySchema),
  exceptions: z.array(rolloutExceptionSchema),
  metadata: z.record(z.string(), z.unknown()),
  metrics: z.record(z.string(), z.number()),
  logs: z.array(z.string()),
});
export type TrajectoryGroup = z.infer<typeof groupSchema>;

const askedAgainKey = "judgedAgain";

/**
 * A group as a judge is to see it that has judged it before, to learn how far it agrees with itself: in the reverse
 * order, and marked, so that RULER reverses its own order too and remembers no answer.
 */
export function askedAgain(group: TrajectoryGroup): TrajectoryGroup {
  const metadata = { ...group.metadata, [askedAgainKey]: true };
  return { ...group, trajectories: group.trajectories.toReversed(), metadata };
}

export function isAskedAgain({ metadata }: Pick<TrajectoryGroup, "metadata">): boolean {
  return metadata[askedAgainKey] === true;
}
