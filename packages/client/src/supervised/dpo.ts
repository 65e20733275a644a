import { dpoConfigSchema, issueText, pairSchema, trajectorySchema } from "@hone/core";
import type { ConversationPair, DpoConfig, Pair, Trajectory } from "@hone/core";
import { isDeepStrictEqual } from "node:util";
import { unusable } from "./examples-source.ts";
import type { ExamplesOf } from "./examples-source.ts";
import { parsedOptions } from "../training/parsed-options.ts";
import type { RunOptions } from "./run-options.ts";
import type { Learning } from "./supervised-run.ts";

/** Two trajectories of one scenario, of which one is better. They are compared from where they part. */
export interface TrajectoryPair {
  chosen: Trajectory;
  rejected: Trajectory;
}
/** What `model.dpo` takes. */
export type DpoExample = ConversationPair | TrajectoryPair;
export type DpoExamples = ExamplesOf<DpoExample>;

export type DpoOptions = DpoConfig & RunOptions<DpoExample>;

export const preference: Learning<Pair> = {
  type: "dpo",
  where: "dpo()",
  stepNames: Object.keys(dpoConfigSchema.shape),
  check: (options) => parsedOptions("dpo()", dpoConfigSchema.safeParse(options)),
  read: readPair,
};

function readPair(value: unknown, place: string): Pair {
  const given = isPairOfTrajectories(value) ? ofTrajectories(value, place) : value;
  const parsed = pairSchema.safeParse(given);
  if (!parsed.success) throw unusable("pair", place, issueText(parsed.error, "it"), parsed.error);
  for (const side of ["chosen", "rejected"] as const) {
    const said = parsed.data[side];
    // What a rollout holds, the server knows.
    if ("rolloutId" in said) continue;
    const trains = said.some((message) => message.role === "assistant" && message.weight !== 0);
    if (!trains) throw unusable("pair", place, `${side} has no assistant message to compare`);
  }
  return parsed.data;
}

function isPairOfTrajectories(value: unknown): value is { chosen: object; rejected: object } {
  if (typeof value !== "object" || value === null) return false;
  const { chosen, rejected } = value as Record<string, unknown>;
  return [chosen, rejected].every(
    (side) => typeof side === "object" && side !== null && !Array.isArray(side),
  );
}

function ofTrajectories(value: { chosen: object; rejected: object }, place: string): Pair {
  const [chosen, rejected] = (["chosen", "rejected"] as const).map((side) => {
    const parsed = trajectorySchema.safeParse(value[side]);
    if (parsed.success) return parsed.data;
    throw unusable(
      "pair",
      place,
      `${side} is no trajectory: ${issueText(parsed.error, "it")}`,
      parsed.error,
    );
  }) as [Trajectory, Trajectory];
  if (chosen.rolloutId !== null && rejected.rolloutId !== null) {
    return {
      chosen: { rolloutId: chosen.rolloutId },
      rejected: { rolloutId: rejected.rolloutId },
    };
  }
  if (!isDeepStrictEqual(chosen.tools, rejected.tools)) {
    throw unusable("pair", place, "chosen and rejected have different tools");
  }
  const shortest = Math.min(chosen.messages.length, rejected.messages.length);
  let parting = 0;
  while (
    parting < shortest &&
    isDeepStrictEqual(chosen.messages[parting], rejected.messages[parting])
  ) {
    parting += 1;
  }
  return {
    prompt: chosen.messages.slice(0, parting),
    tools: chosen.tools,
    chosen: chosen.messages.slice(parting) as ConversationPair["chosen"],
    rejected: rejected.messages.slice(parting) as ConversationPair["rejected"],
  };
}
