/** The policy gradient. */
export interface PolicySettings {
  objective: "rloo" | "grpo";
  /** Weight of the KL to the first policy. */
  beta: number;
  steps: number;
  groupsPerStep: number;
  groupSize: number;
  learningRate: number;
  /**
   * Of AdamW. Far above the gradients a step is `learningRate / eps` times their mean, and a reward that tells little
   * apart teaches slowly. @default the server's: below the gradients, so that steps are as long for every reward
   */
  eps?: number | undefined;
  /** What the gradient's norm is cut to; with a large `eps` it has to be above the norms. @default the server's, 1 */
  maxGradNorm?: number | undefined;
  /** Answers to each test prompt, before and after. */
  testSamples: number;
  /** Further options of the training step. */
  train?: Record<string, unknown> | undefined;
}

/** How the parts of the pipeline are set. The defaults are the paper's where it says any. */
export interface GoodTeacherSettings {
  /** Takes so many preferences, drawn by the seed. @default all */
  preferences?: number | undefined;
  dropTies: boolean;
  testShare: number;
  policyShare: number;
  sft: { epochs: number; batchSize: number; learningRate: number };
  /** Answers to a prompt of which a pair is made, and to one that policies are trained or measured on. */
  samples: { pairs: number; measured: number };
  /** Pairs of each reward model. @default as many as there are */
  pairs?: number | undefined;
  rewardModel: { epochs: number; batchSize: number; learningRate: number; centering: number };
  policy: PolicySettings;
  temperature: number;
  answerTokens: number;
  concurrency: number;
  seed: number;
}

export const goodTeacherDefaults: GoodTeacherSettings = {
  ...{ dropTies: true, testShare: 0.1, policyShare: 0.2 },
  sft: { epochs: 1, batchSize: 32, learningRate: 1e-4 },
  samples: { pairs: 2, measured: 10 },
  rewardModel: { epochs: 1, batchSize: 32, learningRate: 1e-4, centering: 0.01 },
  policy: {
    ...{ objective: "rloo", beta: 0.05, steps: 60, groupsPerStep: 16, groupSize: 4 },
    ...{ learningRate: 1e-4, testSamples: 4 },
  },
  ...{ temperature: 1, answerTokens: 512, concurrency: 32, seed: 0 },
};

/** What suits the small set on a base that a script made for it. */
export const smallSetSettings: GoodTeacherSettings = {
  ...goodTeacherDefaults,
  ...{ testShare: 0.1, policyShare: 0.3, answerTokens: 8, concurrency: 64 },
  sft: { epochs: 4, batchSize: 32, learningRate: 3e-3 },
  samples: { pairs: 2, measured: 8 },
  pairs: 256,
  rewardModel: { epochs: 12, batchSize: 32, learningRate: 3e-3, centering: 0.01 },
  policy: {
    ...{ objective: "rloo", beta: 0.05, steps: 12, groupsPerStep: 16, groupSize: 4 },
    // Gradients' norms are 1 to 2 for the ground truth: nothing is cut to one length, and a flat reward is flat.
    ...{ learningRate: 0.15, eps: 1, maxGradNorm: 10, testSamples: 4, train: { warmupSteps: 0 } },
  },
};

/** The file of a scorer that is a function of one's own. */
export function scorerFileOf(name: string): string | undefined {
  const path = name.split("#")[0] ?? "";
  return !/^https?:/.test(name) && /\.[cm]?[jt]s$/.test(path) ? path : undefined;
}
