import {
  createRolloutBatchSchema,
  patchRolloutBatchSchema,
  rolloutBatchLimit,
  type RolloutBatch,
  type RolloutBatchItem,
} from "@hone/core";
import { Hono } from "hono";
import type { Logger } from "pino";
import { z } from "zod";
import type { AppEnv } from "../http/env.ts";
import { toHoneError } from "../http/errors.ts";
import { issuesToError, readJson } from "../http/json.ts";
import { faultsOfParts } from "../http/schema-parts.ts";
import type { Rollouts } from "./rollouts.ts";

/** The items are read one by one, so that an item that is written wrongly is refused by itself. */
const unread = { rollouts: z.array(z.unknown()).min(1).max(rolloutBatchLimit) };
const beginsSchema = createRolloutBatchSchema.extend(unread);
const beginSchema = createRolloutBatchSchema.shape.rollouts.element;
const endsSchema = patchRolloutBatchSchema.extend(unread);
const endSchema = patchRolloutBatchSchema.shape.rollouts.element;

/**
 * Opens and ends many rollouts by one request. If a rollout is one short answer, separate requests for it would
 * cost more than the answer. A rollout that is refused does not disturb the others.
 */
export function bulkRolloutRoutes(rollouts: Rollouts, log: Logger): Hono<AppEnv> {
  const app = new Hono<AppEnv>();

  async function each<S extends z.ZodType>(
    requestId: string,
    schema: S,
    items: readonly unknown[],
    work: (item: z.output<S>) => Promise<Omit<RolloutBatchItem, "error">>,
  ): Promise<RolloutBatch> {
    const one = async (item: unknown, at: number): Promise<RolloutBatchItem> => {
      try {
        return { ...(await work(await readItem(schema, item, at))), error: null };
      } catch (thrown) {
        const { error } = toHoneError(thrown, log, requestId).toEnvelope();
        return { rollout: null, trajectory: null, error: error as RolloutBatchItem["error"] };
      }
    };
    return { object: "list", data: await Promise.all(items.map(one)) };
  }

  app.post("/v1/batch/rollouts", async (c) => {
    const body = await readJson(c, beginsSchema);
    const keyId = c.get("keyId");
    const begun = await each(c.get("requestId"), beginSchema, body.rollouts, async (rollout) => ({
      rollout: await rollouts.create(keyId, rollout),
      trajectory: null,
    }));
    return c.json(begun);
  });

  app.patch("/v1/batch/rollouts", async (c) => {
    const body = await readJson(c, endsSchema);
    const keyId = c.get("keyId");
    const requestId = c.get("requestId");
    const changed = await each(requestId, endSchema, body.rollouts, async ({ id, ...change }) => ({
      rollout: await rollouts.patch(keyId, id, change),
      trajectory: body.trajectories ? await rollouts.trajectory(keyId, id) : null,
    }));
    return c.json(changed);
  });
  return app;
}

/** Names a fault of one item as if the body had been read as a whole: `rollouts[3].reward`. */
async function readItem<S extends z.ZodType>(
  schema: S,
  item: unknown,
  at: number,
): Promise<z.output<S>> {
  const faults = await faultsOfParts(schema, item);
  const result = faults.length === 0 ? schema.safeParse(item) : null;
  if (result?.success) return result.data;
  throw issuesToError(
    (result?.error.issues ?? faults).map((issue) => ({
      ...issue,
      path: ["rollouts", at, ...issue.path],
    })),
  );
}
