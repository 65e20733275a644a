import { readFile, rename, writeFile } from "node:fs/promises";

/** What a run took so far, over all its starts. */
export interface Totals {
  /** How often it was started: once, and again for each time it was cut off. */
  starts: number;
  /** Seconds of wall time; what a killed start did after its last step or evaluation is not in it. */
  seconds: number;
  /** Those of the steps. */
  trainingSeconds: number;
}

export interface RunTotals {
  stepBegins(): void;
  stepEnded(): void;
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
  const began = now();
  let stepBegan = began;
  let training = 0;
  const soFar = (): Totals => ({
    starts: earlier.starts + 1,
    seconds: earlier.seconds + (now() - began) / 1000,
    trainingSeconds: earlier.trainingSeconds + training / 1000,
  });
  return {
    stepBegins: () => void (stepBegan = now()),
    stepEnded: () => void (training += now() - stepBegan),
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
  if (text === null) return { starts: 0, seconds: 0, trainingSeconds: 0 };
  return JSON.parse(text) as Totals;
}
