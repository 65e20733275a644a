// The one judge of both sides: a Hone server that imports each adapter and answers the held-out scenarios.
// Ours go the same way as TRL's. Nothing of this is in anybody's clock.
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { gather, type Model, type Policy } from "@hone/client";
import { operationInfoSchema } from "@hone/core";
import type { BenchServer } from "./hone-server.ts";
import type { LearnTask } from "./task.ts";

/** Of one policy. */
export interface Judgement {
  /** The metric for each held-out scenario, in their order. */
  scores: number[];
  /** Means of all metrics, and of the reward. */
  means: Record<string, number>;
}

export async function judgeAdapter(
  server: BenchServer,
  task: LearnTask,
  model: Model,
  folder: string,
): Promise<Judgement> {
  const copy = join(server.dataDir, "imports", "judged");
  await cp(folder, copy, { recursive: true });
  try {
    const step = await importAdapter(server, model.name, copy);
    return await judge(task, model.at(step));
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

export async function judge(task: LearnTask, policy: Policy): Promise<Judgement> {
  const { judging } = task;
  const groups = await gather(
    policy,
    (model, scenario) => judging.rollout(model, scenario),
    task.heldOut,
    { mode: "eval", concurrency: 64 },
  );
  const all = groups.flatMap(({ trajectories }) => trajectories);
  const names = Object.keys(all[0]?.metrics ?? {});
  return {
    scores: groups.map(({ trajectories }) =>
      mean(trajectories.map((one) => one.metrics[judging.metric] ?? Number.NaN)),
    ),
    means: {
      reward: mean(all.map(({ reward }) => reward ?? Number.NaN)),
      ...Object.fromEntries(
        names.map((name) => [name, mean(all.map(({ metrics }) => metrics[name] ?? Number.NaN))]),
      ),
    },
  };
}

/** Resolves to the number of the policy that it became. */
async function importAdapter(server: BenchServer, model: string, path: string): Promise<number> {
  const headers = { authorization: `Bearer ${server.key}`, "content-type": "application/json" };
  const read = async (response: Response) => {
    if (!response.ok) throw new Error(`The import failed: ${await response.text()}`);
    return operationInfoSchema.parse(await response.json());
  };
  const body = JSON.stringify({ clientToken: crypto.randomUUID(), op: { type: "import", path } });
  const url = `${server.url}/v1/models/${model}/operations`;
  let operation = await read(await fetch(url, { method: "POST", headers, body }));
  while (operation.status === "queued" || operation.status === "running") {
    await delay(50);
    operation = await read(await fetch(`${server.url}/v1/operations/${operation.id}`, { headers }));
  }
  if (operation.status !== "succeeded" || !operation.result) {
    throw new Error(`The import was ${operation.status}: ${operation.error?.message ?? ""}`);
  }
  return operation.result.step;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
