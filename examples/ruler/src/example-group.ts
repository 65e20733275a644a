import type { Trajectory, TrajectoryGroup } from "@hone/core";

function answer(content: string, rest: Partial<Trajectory> = {}): Trajectory {
  return {
    rolloutId: null,
    model: null,
    policy: null,
    messages: [
      { role: "user", content: "When does the train leave?" },
      { role: "assistant", content },
    ],
    tools: null,
    histories: [],
    reward: null,
    metrics: {},
    metadata: {},
    logs: [],
    usage: { completions: 1, promptTokens: 12, completionTokens: 8 },
    startedAt: 0,
    durationMs: 0,
    ...rest,
  };
}

export function groupOf(
  answers: readonly string[],
  scenario: unknown = { kind: "email" },
): TrajectoryGroup {
  return {
    id: "grp_example",
    scenario,
    trajectories: answers.map((text) => answer(text)),
    exceptions: [],
    metadata: {},
    metrics: {},
    logs: [],
  };
}

export const exampleGroup = groupOf(["At 9:40 from platform 3.", "In the morning."]);
