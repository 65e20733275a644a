import type { ChatMessage, Trajectory, TrajectoryGroup } from "@hone/core";

export const task: ChatMessage[] = [
  { role: "system", content: "You are a helpful agent." },
  { role: "user", content: "What is the capital of France?" },
];

export function trajectory(
  ending: string | ChatMessage[],
  rest: Partial<Trajectory> = {},
): Trajectory {
  const messages: ChatMessage[] =
    typeof ending === "string" ? [{ role: "assistant", content: ending }] : ending;
  return {
    rolloutId: "ro_1",
    model: "m",
    policy: "m@0",
    messages: [...task, ...messages],
    tools: null,
    histories: [],
    reward: null,
    metrics: {},
    metadata: {},
    logs: [],
    usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
    startedAt: 1,
    durationMs: 1,
    ...rest,
  };
}

export function group(trajectories: Trajectory[]): TrajectoryGroup {
  return {
    id: "grp_1",
    scenario: { n: 1 },
    trajectories,
    exceptions: [{ rolloutId: null, type: "E", message: "m", duringCall: 2 }],
    metadata: { kind: "x" },
    metrics: { m: 1 },
    logs: ["before"],
  };
}

/** A group whose members end with these texts. */
export function groupOf(...endings: string[]): TrajectoryGroup {
  return group(endings.map((ending) => trajectory(ending)));
}

export const rewardsOf = (scored: TrajectoryGroup): (number | null)[] =>
  scored.trajectories.map(({ reward }) => reward);
