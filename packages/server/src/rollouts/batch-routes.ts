import {
  createRolloutBatchSchema,
  patchRolloutBatchSchema,
  type RolloutBatch,
  type RolloutBatchItem,
} from "@hone/core";
import { Hono } from "hono";
import type { Logger } from "pino";
import type { AppEnv } from "../http/env.ts";
import { toHoneError } from "../http/errors.ts";
import { readJson } from "../http/json.ts";
import type { Rollouts } from "./rollouts.ts";

/**
 * Rollouts begun and ended many by one request: where a rollout is one short answer, requests for each
 * alone cost more than the answer. Each stands for itself: one that is refused leaves the others alone.
 */
export function rolloutBatchRoutes(rollouts: Rollouts, log: Logger): Hono<AppEnv> {
  const app = new Hono<AppEnv>();

  async function each<T>(
    requestId: string,
    items: readonly T[],
    work: (item: T) => Promise<Omit<RolloutBatchItem, "error">>,
  ): Promise<RolloutBatch> {
    const one = async (item: T): Promise<RolloutBatchItem> => {
      try {
        return { ...(await work(item)), error: null };
      } catch (thrown) {
        const { error } = toHoneError(thrown, log, requestId).toEnvelope();
        return { rollout: null, trajectory: null, error: error as RolloutBatchItem["error"] };
      }
    };
    return { object: "list", data: await Promise.all(items.map(one)) };
  }

  app.post("/v1/batch/rollouts", async (c) => {
    const body = await readJson(c, createRolloutBatchSchema);
    const begun = await each(c.get("requestId"), body.rollouts, async (rollout) => ({
      rollout: await rollouts.create(c.get("keyId"), rollout),
      trajectory: null,
    }));
    return c.json(begun);
  });

  app.patch("/v1/batch/rollouts", async (c) => {
    const body = await readJson(c, patchRolloutBatchSchema);
    const keyId = c.get("keyId");
    const changed = await each(c.get("requestId"), body.rollouts, async ({ id, ...change }) => ({
      rollout: await rollouts.patch(keyId, id, change),
      trajectory: body.trajectories ? await rollouts.trajectory(keyId, id) : null,
    }));
    return c.json(changed);
  });
  return app;
}
