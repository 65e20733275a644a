// What `pnpm experiment learn` needs of a task, for both sides alike.
import type { RolloutModel, RolloutResult } from "@hone/client";

interface ChatMessage {
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
  /** Whether an advantage is divided by the standard deviation of its group (+ 1e-4). */
  scaleRewards: "none" | "group";
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
  /** One answer at the temperature of training. */
  rollout(model: RolloutModel, scenario: Scenario): Promise<RolloutResult>;
  judging: {
    rollout(model: RolloutModel, scenario: Scenario): Promise<RolloutResult>;
    /** The metric of it that the curves show. */
    metric: string;
    label: string;
  };
  /** Other held-out scores worth a line in the picture. */
  references: { name: string; score: number }[];
}
