import type { TrainResult, TrajectoryGroup } from "@hone/core";

export function group(
  rewards: (number | null)[],
  answer = (i: number) => `answer ${i}`,
): TrajectoryGroup {
  return {
    id: `grp_${Math.random()}`,
    scenario: { n: rewards.length },
    trajectories: rewards.map((reward, i) => ({
      rolloutId: "ro_1",
      model: "m",
      policy: "m@1",
      messages: [
        { role: "user", content: "?" },
        { role: "assistant", content: answer(i) },
      ],
      tools: null,
      histories: [],
      reward,
      metrics: { score: i },
      metadata: {},
      logs: [],
      usage: { completions: 1, promptTokens: 3, completionTokens: 10 * (i + 1) },
      startedAt: 1,
      durationMs: 1,
    })),
    exceptions: [],
    metadata: {},
    metrics: {},
    logs: [],
  };
}

export function trained(step: number, metrics: TrainResult["metrics"] = {}): TrainResult {
  return {
    type: "train",
    trained: true,
    step,
    policy: `m@${step}`,
    reasons: { zero_variance: 1 },
    groups: [],
    metrics: { loss: 0.5, entropy: 1, kl: null, ...metrics },
    checkpoint: null,
    warnings: ["the server says"],
  };
}
