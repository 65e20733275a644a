import { mulberry32, type Trajectory, type TrajectoryGroup } from "@hone/core";

/** Draws from a normal distribution. */
export function normals(seed: number): () => number {
  const random = mulberry32(seed);
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

function output(content: string, quality: number): Trajectory {
  return {
    ...{ rolloutId: null, model: "m", policy: "m@0", tools: null, histories: [] },
    messages: [
      { role: "user", content: "Do it." },
      { role: "assistant", content },
    ],
    ...{ reward: quality, metrics: { quality }, metadata: {}, logs: [] },
    usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
    ...{ startedAt: 0, durationMs: 0 },
  };
}

export function groupOf(id: string, qualities: readonly number[]): TrajectoryGroup {
  return {
    ...{ id, scenario: { id }, exceptions: [], metadata: {}, metrics: {}, logs: [] },
    trajectories: qualities.map((quality, at) => output(`${id}, output ${at}`, quality)),
  };
}

/** Groups whose outputs differ within (`within`) and whose means differ (`between`), both as deviations. */
export function groupsOf(given: {
  groups: number;
  outputs: number;
  within: number;
  between: number;
  seed: number;
}): TrajectoryGroup[] {
  const normal = normals(given.seed);
  return Array.from({ length: given.groups }, (_, at) => {
    const level = given.between * normal();
    const outputs = Array.from({ length: given.outputs }, () => level + given.within * normal());
    return groupOf(`g${at}`, outputs);
  });
}

export const qualityOf = ({ metrics }: Trajectory): number => metrics["quality"] ?? NaN;
