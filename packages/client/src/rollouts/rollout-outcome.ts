import {
  completionsTrainingSchema,
  HoneError,
  issuePath,
  issueText,
  type Trajectory,
} from "@hone/core";

/** What a rollout returns: its reward alone, or its reward with metrics and logs that the trajectory keeps. */
export type RolloutResult =
  | number
  | null
  | {
      /** null: none yet (a judge gives it later), or it does not apply. */
      reward: number | null;
      metrics?: Record<string, number> | undefined;
      metadata?: Record<string, string | number | boolean | null> | undefined;
      logs?: string[] | undefined;
      /**
       * Completions that are trained in another way than the reward says, by the `id` of the response that the
       * agent got: `{ [response.id]: { trainable: false } }`.
       */
      completions?: Trajectory["completions"];
    };

export interface RolloutOutcome {
  reward: number | null;
  metrics: Record<string, number>;
  metadata: Record<string, string | number | boolean | null>;
  logs: string[];
  completions?: Trajectory["completions"];
}

const knownKeys = ["reward", "metrics", "metadata", "logs", "completions"];

/** Throws if the reward is neither a finite number nor null: a missing reward must not count as zero. */
export function readOutcome(value: unknown): RolloutOutcome {
  if (value === null || typeof value !== "object") {
    return { reward: readReward(value), metrics: {}, metadata: {}, logs: [] };
  }
  for (const key of Object.keys(value)) {
    if (!knownKeys.includes(key)) {
      throw invalid(`returned an unknown key "${key}"; put numbers into metrics`, key);
    }
  }
  const result = value as Partial<Record<keyof RolloutOutcome, unknown>>;
  return {
    reward: readReward(result.reward),
    metrics: readRecord("metrics", result.metrics, "finite numbers", Number.isFinite),
    metadata: readRecord("metadata", result.metadata, "texts, numbers, booleans or null", isPlain),
    logs: readLogs(result.logs),
    ...readCompletions(result.completions),
  };
}

function readReward(reward: unknown): number | null {
  if (reward === null || Number.isFinite(reward)) return reward as number | null;
  throw invalid(
    `gave the reward ${shown(reward)}; return a finite number, or null for none yet, alone or as {reward}`,
    "reward",
  );
}

function readRecord<T>(
  name: string,
  value: unknown,
  what: string,
  accepts: (entry: unknown) => boolean,
): Record<string, T> {
  if (value === undefined) return {};
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(`gave ${name} that are no object`, name);
  }
  for (const [key, entry] of Object.entries(value)) {
    if (!accepts(entry)) {
      throw invalid(
        `gave ${name}.${key} = ${shown(entry)}; ${name} hold ${what}`,
        `${name}.${key}`,
      );
    }
  }
  return value as Record<string, T>;
}

function readLogs(logs: unknown): string[] {
  if (logs === undefined) return [];
  if (Array.isArray(logs) && logs.every((line) => typeof line === "string")) return logs;
  throw invalid("gave logs that are no list of texts", "logs");
}

function readCompletions(given: unknown): Pick<RolloutOutcome, "completions"> {
  if (given === undefined) return {};
  const parsed = completionsTrainingSchema.safeParse(given);
  if (parsed.success) return { completions: parsed.data };
  const where = ["completions", issuePath(parsed.error)].filter(Boolean).join(".");
  throw invalid(`gave ${where}: ${issueText(parsed.error, "the options of a completion")}`, where);
}

function isPlain(entry: unknown): boolean {
  return entry === null || ["string", "boolean"].includes(typeof entry) || Number.isFinite(entry);
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

function invalid(message: string, param: string): HoneError {
  return new HoneError(`The rollout ${message}.`, { code: "invalid_reward", param });
}
