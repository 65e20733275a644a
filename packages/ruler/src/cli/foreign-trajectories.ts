import { toChatMessage, trajectorySchema } from "@hone/core";
import type { Trajectory } from "@hone/core";
import { z } from "zod";

/*
 * The files of other trainers: ART's trajectories (a group a line, or a trajectory a line) and TRL's completions and
 * data sets (a prompt and a completion a line). What a reward function reads is taken over; token data is not.
 */

/** A trajectory, and what tells its group: null where it stands alone. */
export interface ForeignTrajectory {
  trajectory: Trajectory;
  group: string | null;
}

const record = z.record(z.string(), z.unknown());
const looseMessage = z.looseObject({ role: z.string(), content: z.unknown().optional() });
/** ART keeps sampled messages as OpenAI's choices. */
const choice = z.looseObject({ message: looseMessage, finish_reason: z.string().nullish() });
const said = z.union([choice, looseMessage]);

const artTrajectory = z.looseObject({
  messages_and_choices: z.array(said).optional(),
  messages: z.array(said).optional(),
  reward: z.number().nullish(),
  metrics: record.nullish(),
  metadata: record.nullish(),
  logs: z.array(z.unknown()).nullish(),
});
const artGroup = z.looseObject({ trajectories: z.array(artTrajectory) });

const text = z.union([z.string(), z.array(looseMessage)]);
const trlRow = z.looseObject({
  prompt: text,
  completion: text,
  reward: z.number().nullish(),
  step: z.union([z.number(), z.string()]).nullish(),
});

/** The trajectories of a line of another trainer's file. Null where it is none that is known. */
export function foreignTrajectories(value: unknown, line: string): ForeignTrajectory[] | null {
  const group = artGroup.safeParse(value);
  if (group.success) {
    return group.data.trajectories.map((one) => ({ trajectory: ofArt(one), group: line }));
  }
  const row = trlRow.safeParse(value);
  if (row.success) {
    // The completions of a prompt in a step are compared with one another.
    const { prompt, step } = row.data;
    return [{ trajectory: ofTrl(row.data), group: JSON.stringify([step ?? null, prompt]) }];
  }
  const single = artTrajectory.safeParse(value);
  if (!single.success || !(single.data.messages_and_choices ?? single.data.messages)) return null;
  const name = single.data.metadata?.["group"] ?? single.data["group_id"];
  const id = name === undefined || name === null ? null : JSON.stringify(name);
  return [{ trajectory: ofArt(single.data), group: id }];
}

function ofArt(given: z.infer<typeof artTrajectory>): Trajectory {
  const parts = given.messages_and_choices ?? given.messages ?? [];
  const turns = parts.flatMap((part, message) => {
    const { finish_reason } = part as { finish_reason?: unknown };
    if (!("message" in part) || typeof finish_reason !== "string") return [];
    return [{ message, text: null, finish_reason }];
  });
  return trajectoryOf({
    messages: parts.map((part) => ("message" in part ? part.message : part) as LooseMessage),
    reward: given.reward ?? null,
    metrics: numbersOf(given.metrics),
    metadata: plainOf(given.metadata),
    logs: (given.logs ?? []).map(String),
    turns,
  });
}

const ofRow = new Set(["prompt", "completion", "reward"]);

/** Further columns are the data set's: a reward function reads them as metadata. */
function ofTrl({ prompt, completion, reward, ...rest }: z.infer<typeof trlRow>): Trajectory {
  const messagesOf = (given: z.infer<typeof text>, role: string) =>
    typeof given === "string" ? [{ role, content: given }] : given;
  const columns = Object.fromEntries(Object.entries(rest).filter(([name]) => !ofRow.has(name)));
  return trajectoryOf({
    messages: [...messagesOf(prompt, "user"), ...messagesOf(completion, "assistant")],
    reward: reward ?? null,
    metrics: {},
    metadata: plainOf(columns),
    logs: [],
    turns: [],
  });
}

type LooseMessage = z.infer<typeof looseMessage>;

function trajectoryOf(
  given: Pick<Trajectory, "reward" | "metrics" | "metadata" | "logs"> & {
    messages: readonly LooseMessage[];
    turns: NonNullable<Trajectory["turns"]>;
  },
): Trajectory {
  return trajectorySchema.parse({
    ...given,
    messages: given.messages.map(toChatMessage),
    rolloutId: null,
    model: null,
    policy: null,
    tools: null,
    histories: [],
    usage: { completions: 0, promptTokens: 0, completionTokens: 0 },
    startedAt: 0,
    durationMs: 0,
  });
}

function numbersOf(given: Record<string, unknown> | null | undefined): Record<string, number> {
  const entries = Object.entries(given ?? {}).map(
    ([name, value]) => [name, Number(value)] as const,
  );
  return Object.fromEntries(entries.filter(([, value]) => Number.isFinite(value)));
}

/** What is no plain value is kept as JSON. */
function plainOf(given: Record<string, unknown> | null | undefined): Trajectory["metadata"] {
  return Object.fromEntries(
    Object.entries(given ?? {}).map(([name, value]) => [
      name,
      value === null || ["string", "number", "boolean"].includes(typeof value)
        ? (value as string | number | boolean | null)
        : JSON.stringify(value),
    ]),
  );
}
