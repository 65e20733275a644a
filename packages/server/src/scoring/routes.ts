import { scoreRequestSchema, type RewardModelList } from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import type { Scoring } from "../ports/scorer.ts";

/** What reward models think of conversations or texts: the operator's, and those that were trained here. */
export function scoringRoutes(scorer: Scoring): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/v1/score", async (c) => {
    // Whole groups of long episodes come at once.
    const request = await readJson(c, scoreRequestSchema);
    return c.json(await scorer.score(request, c.req.raw.signal));
  });
  app.get("/v1/reward-models", async (c) => {
    const list: RewardModelList = { object: "list", data: await scorer.list() };
    return c.json(list);
  });
  return app;
}
