// What a run leaves in its folder: RUN/run.json once it is through, and an adapter in RUN/step-N for each
// policy that is to be judged. What is there is not made again.
import { existsSync } from "node:fs";
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

export type Contender = "trl" | "hone";
export const contenders: readonly Contender[] = ["trl", "hone"];

export interface StepTime {
  step: number;
  /** From the beginning of training to the end of the step; saving adapters for the judge is not in it. */
  seconds: number;
  /** Processor time in the same while, of all processes of the contender; null where there is no /proc. */
  processorSeconds: number | null;
  /** Mean of the step's samples. */
  reward: number | null;
  /** Mean tokens of an answer. */
  tokens: number | null;
  entropy: number | null;
  /** Of Hone's steps: until the rollouts were there. */
  gatherSeconds?: number | undefined;
}

export interface RunRecord {
  contender: Contender;
  seed: number;
  /** From the start of the processes until training could begin. */
  startSeconds: number;
  /** The first prompt in tokens: both sides must show the model the same. */
  promptIds: number[];
  steps: StepTime[];
}

export function runFolder(out: string, contender: Contender, seed: number): string {
  return join(out, `seed-${seed}-${contender}`);
}

export function stepFolder(run: string, step: number): string {
  return join(run, `step-${step}`);
}

/** Steps whose policies are judged, without the base. */
export function judgedSteps({
  steps,
  judgeEvery,
}: {
  steps: number;
  judgeEvery: number;
}): number[] {
  return Array.from({ length: steps }, (_, index) => index + 1).filter(
    (step) => step % judgeEvery === 0 || step === steps,
  );
}

export async function readJson<T>(path: string): Promise<T | null> {
  return existsSync(path) ? (JSON.parse(await readFile(path, "utf8")) as T) : null;
}

/** Whole or not at all: a bench that is cut off finds nothing that is half there. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFile(`${path}.partial`, `${JSON.stringify(value, null, 1)}\n`);
  await rename(`${path}.partial`, path);
}
