import { randomUUID } from "node:crypto";
import { cp } from "node:fs/promises";
import { gather, Hone, type TrajectoryGroup } from "@hone/client";
import { playChat } from "./agent.ts";
import { freePort, startServerProcess } from "./server-process.ts";

/** A data directory at a trained policy (with optimizer moments) and finished rollouts that wait for a step. */
export interface Template {
  dataDir: string;
  /** What the step trains, the same in every trial. */
  groups: TrajectoryGroup[];
  /** N, before the step. */
  step: number;
}

export const modelName = "faults";
/** Several micro-batches and two optimizer steps, so that a step has a middle. */
export const trainOptions = {
  learningRate: 1e-3,
  warmupSteps: 0,
  optimizerSteps: 2,
  maxTokensPerMicroBatch: 512,
} as const;

const scenarios = ["red", "green", "blue", "grey"].map((word) => ({ word }));

export async function makeTemplate(dataDir: string): Promise<Template> {
  const server = await startServerProcess({ dataDir, port: await freePort(), mark: randomUUID() });
  try {
    const hone = new Hone({ baseURL: server.url, apiKey: server.key });
    const model = await hone.model({ name: modelName, lora: { r: 8, alpha: 16 }, seed: 7 });
    const play = playChat([]);
    const options = { groupSize: 8, concurrency: 16 };
    const first = await gather(model, play, scenarios, options);
    const { trained, step } = await model.train(first, trainOptions);
    if (!trained) throw new Error("the template's first step trained nothing");
    const groups = await gather(model, play, scenarios, options);
    return { dataDir, groups, step };
  } finally {
    await server.stop();
  }
}

export async function copyTemplate(template: Template, dataDir: string): Promise<void> {
  // Links to its own address are the old server's; libsql removes its own files a moment after it was closed.
  const filter = (path: string) => !/server\.json$|hone\.db-(wal|shm)$/.test(path);
  await cp(template.dataDir, dataDir, { recursive: true, filter });
}
