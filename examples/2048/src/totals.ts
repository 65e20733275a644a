import { readFile, rename, writeFile } from "node:fs/promises";
import { createStageClock, type StageClock } from "./stages.ts";

/** What a run took so far, over all its starts. */
export interface Totals {
  /** How often it was started: once, and again for each time it was cut off. */
  starts: number;
  /** Seconds of wall time; what a killed start did after its last step or evaluation is not in it. */
  seconds: number;
  /** Seconds of wall time by stage. */
  stages: Record<string, number>;
  /** Answers that were asked for. */
  turns: number;
}

export interface RunTotals {
  readonly clock: StageClock;
  addTurns(count: number): void;
  soFar(): Totals;
  /** Writes them down, for the start after this one. */
  save(): Promise<void>;
}

/** Goes on with the totals of the run's earlier starts. */
export async function openTotals(
  file: string,
  now: () => number = () => performance.now(),
): Promise<RunTotals> {
  const earlier = await readTotals(file);
  const clock = createStageClock(now);
  const began = now();
  let turns = 0;
  const soFar = (): Totals => {
    const stages = { ...earlier.stages };
    for (const [stage, seconds] of Object.entries(clock.seconds())) {
      stages[stage] = (stages[stage] ?? 0) + seconds;
    }
    return {
      starts: earlier.starts + 1,
      seconds: earlier.seconds + (now() - began) / 1000,
      stages,
      turns: earlier.turns + turns,
    };
  };
  return {
    clock,
    addTurns: (count) => void (turns += count),
    soFar,
    async save() {
      // Whole or not at all: the run may be killed at any moment.
      await writeFile(`${file}.partial`, `${JSON.stringify(soFar(), null, 2)}\n`);
      await rename(`${file}.partial`, file);
    },
  };
}

async function readTotals(file: string): Promise<Totals> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (text === null) return { starts: 0, seconds: 0, stages: {}, turns: 0 };
  return JSON.parse(text) as Totals;
}
