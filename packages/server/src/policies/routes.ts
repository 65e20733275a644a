import { HoneError, modelNameSchema, putModelSchema } from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import type { ModelService } from "./service.ts";

/** `GET /v1/models/{name}` is OpenAI's and the gateway's; what Hone knows of a model is its `/state`. */
export function modelRoutes(service: ModelService): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.put("/v1/models/:model", async (c) => {
    const name = modelNameSchema.safeParse(c.req.param("model"));
    if (!name.success) {
      const message = name.error.issues[0]?.message ?? "not a model name";
      throw new HoneError(`${message}.`, { code: "invalid_request", param: "model" });
    }
    return c.json(await service.put(name.data, await readJson(c, putModelSchema)));
  });
  app.get("/v1/models/:model/state", (c) => c.json(service.info(c.req.param("model"))));
  app.get("/v1/models/:model/policies", (c) =>
    c.json({ object: "list", data: service.policies(c.req.param("model")) }),
  );
  return app;
}
