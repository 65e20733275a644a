// What `pnpm bench learn` needs of a task, for both sides alike.
import type { RolloutModel, RolloutResult } from "@hone/client";

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** The same numbers for TRL and for Hone. */
export interface Settings {
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  learningRate: number;
  warmupSteps: number;
  temperature: number;
  /** Limit of an answer, and the C of the loss: TRL has one number for both. */
  maxTokens: number;
  /** Which policies are kept and judged: those after every so many steps, and the last. */
  judgeEvery: number;
  /** For TRL alone: rows of a forward and backward; all samples of a step unless memory is short. */
  trlRows: number;
}

export interface LearnTask<Scenario = unknown> {
  name: string;
  /** A folder. */
  base: string;
  dtype: "float32" | "bfloat16";
  settings: Settings;
  /** In the order of training: both sides take the first `groupsPerStep`, then the next ones. */
  train(seed: number): Scenario[];
  heldOut: Scenario[];
  messages(scenario: Scenario): readonly ChatMessage[];
  /** What `rewards.py` needs to reward an answer to this scenario. */
  key(scenario: Scenario): Record<string, unknown>;
  rollout(model: RolloutModel, scenario: Scenario, temperature: number): Promise<RolloutResult>;
  judging: {
    /** The metric of the rollout that the curves show. */
    metric: string;
    label: string;
    temperature: number;
    /** Answers to each held-out scenario. */
    samples: number;
  };
  /** Other held-out scores worth a line in the picture. */
  references: { name: string; score: number }[];
}
