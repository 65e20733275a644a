import { readFile, rename, writeFile } from "node:fs/promises";
import type { OperationEvent, TrajectoryGroup } from "@hone/core";

/** What a run has taken so far, over all its starts. */
export interface Totals {
  /** How often it was started: once, and again for each time it was cut off. */
  starts: number;
  /** Seconds of wall time; what a killed start did after its last step or evaluation is not in it. */
  seconds: number;
  /** Seconds of wall time by stage. */
  stages: Record<string, number>;
  /** Answers that were asked for. */
  turns: number;
  /** Tokens that were read and sampled for them; reading what a conversation has said before counts again. */
  promptTokens: number;
  completionTokens: number;
  /** What judges and rollouts say that they paid (`ruler/cost_usd` of a group, `cost_usd` of a rollout). */
  usd: number;
}

export interface RunTotals {
  /** Adds the time that the work takes to its stage. */
  time<Result>(stage: string, work: () => Promise<Result>): Promise<Result>;
  /** The stages of a training step that the server tells of: parts of "training". */
  onEvent(event: OperationEvent): void;
  /** What the rollouts of these groups took. */
  addPlayed(groups: readonly TrajectoryGroup[]): void;
  addUsd(usd: number): void;
  soFar(): Totals;
  /** Writes them down for the next start. */
  save(): Promise<void>;
}

/** Continues the totals of the run's earlier starts. */
export async function openTotals(
  file: string,
  now: () => number = () => performance.now(),
): Promise<RunTotals> {
  const totals = await readTotals(file);
  const earlier = totals.seconds;
  const began = now();
  totals.starts += 1;
  const soFar = (): Totals => ({
    ...totals,
    stages: { ...totals.stages },
    seconds: earlier + (now() - began) / 1000,
  });
  const add = (stage: string, seconds: number): void => {
    totals.stages[stage] = (totals.stages[stage] ?? 0) + seconds;
  };
  return {
    async time(stage, work) {
      const from = now();
      try {
        return await work();
      } finally {
        add(stage, (now() - from) / 1000);
      }
    },
    onEvent(event) {
      if (event.type === "stage") add(`training: ${event.stage}`, event.seconds);
    },
    addPlayed(groups) {
      for (const { usage, metrics } of groups.flatMap(({ trajectories }) => trajectories)) {
        totals.turns += usage.completions;
        totals.promptTokens += usage.promptTokens;
        totals.completionTokens += usage.completionTokens;
        totals.usd += metrics["cost_usd"] ?? 0;
      }
    },
    addUsd: (usd) => void (totals.usd += usd),
    soFar,
    async save() {
      // Whole or not at all: the run may be killed at any moment.
      await writeFile(`${file}.partial`, `${JSON.stringify(soFar(), null, 2)}\n`);
      await rename(`${file}.partial`, file);
    },
  };
}

async function readTotals(file: string): Promise<Totals> {
  const none = {
    ...{ starts: 0, seconds: 0, stages: {}, turns: 0 },
    ...{ promptTokens: 0, completionTokens: 0, usd: 0 },
  };
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "{}";
    throw error;
  });
  return { ...none, ...(JSON.parse(text) as Partial<Totals>) };
}
