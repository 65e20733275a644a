import { pairSchema, readRows } from "./preferences.ts";
import { readStart, startedFrom, type ServerOptions } from "./imitation.ts";
import type { trainedSchema } from "./reward-source.ts";
import { runStage } from "./stage.ts";
import type { z } from "zod";

export interface RewardModelOptions extends ServerOptions {
  /** Pairs, as `pairs` mixes them. */
  pairs: string;
  /** The first policy: the reward model begins with its weights. */
  start: string;
  out: string;
  model: string;
  epochs: number;
  batchSize: number;
  learningRate: number;
  /** Weight of the centring term: the squared sum of a pair's scores. */
  centering: number;
  seed: number;
}

/** Trains a reward model by Bradley-Terry. It is scored by at `/v1/score` at once. */
export async function trainRewardModel(options: RewardModelOptions): Promise<boolean> {
  const { pairs: path, start, out, model: name, signal, onStep } = options;
  const { epochs, batchSize, learningRate, centering, seed } = options;
  return await runStage(
    {
      ...{ name: "reward-model", out, inputs: { pairs: path, sft: start } },
      options: { model: name, epochs, batchSize, learningRate, centering, seed },
    },
    async () => {
      const rows = await readRows(path, pairSchema);
      const { model } = await startedFrom(await readStart(start), name, options);
      const run = await model.bradleyTerry(
        rows.map(({ prompt, chosen, rejected }) => ({ prompt, chosen, rejected })),
        {
          ...{ epochs, batchSize, learningRate, centering, seed, signal },
          ...{ run: "reward model", onProgress: onStep },
        },
      );
      await model.at(run.step).save({ signal });
      const onPolicy = rows.filter((row) => row.onPolicy).length;
      const made: z.infer<typeof trainedSchema> = {
        ...{ model: name, policy: run.policy },
        ...{ onPolicyShare: onPolicy / rows.length, pairs: rows.length },
      };
      return `${JSON.stringify(made, null, 2)}\n`;
    },
  );
}
