import { createRolloutSchema, listRolloutsSchema, patchRolloutSchema } from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import { readQuery } from "../http/query.ts";
import type { RolloutReader } from "./list.ts";
import type { Rollouts } from "./rollouts.ts";

export function rolloutRoutes(rollouts: Rollouts, reader: RolloutReader): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/v1/rollouts", async (c) => {
    const body = await readJson(c, createRolloutSchema);
    return c.json(await rollouts.create(c.get("keyId"), body));
  });
  app.get("/v1/rollouts/:id", (c) => c.json(rollouts.info(c.get("keyId"), c.req.param("id"))));
  app.patch("/v1/rollouts/:id", async (c) => {
    const body = await readJson(c, patchRolloutSchema);
    return c.json(await rollouts.patch(c.get("keyId"), c.req.param("id"), body));
  });
  app.get("/v1/rollouts/:id/trajectory", async (c) =>
    c.json(await rollouts.trajectory(c.get("keyId"), c.req.param("id"))),
  );
  app.get("/v1/rollouts/:id/completions", async (c) =>
    c.json(await reader.completions(c.get("keyId"), c.req.param("id"))),
  );
  app.get("/v1/models/:model/rollouts", async (c) => {
    const query = readQuery(c, listRolloutsSchema);
    return c.json(await reader.list(c.get("keyId"), c.req.param("model"), query));
  });
  return app;
}
