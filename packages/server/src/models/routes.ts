import {
  type DeletedModel,
  deleteModelSchema,
  HoneError,
  modelNameSchema,
  patchPolicySchema,
  putModelSchema,
} from "@hone/core";
import { Hono } from "hono";
import type { AppEnv } from "../http/env.ts";
import { readJson } from "../http/json.ts";
import { readQuery } from "../http/query.ts";
import type { ModelDeletion } from "./deletion.ts";
import type { Policies } from "./policies.ts";
import type { ModelService } from "./service.ts";

/** `GET /v1/models/{name}` is OpenAI's and the gateway's; what Hone knows of a model is its `/state`. */
export function modelRoutes(options: {
  service: ModelService;
  policies: Policies;
  deletion: Pick<ModelDeletion, "delete">;
  /** Memory of the adapters in the engine. */
  memory: () => { bytes: number; maxBytes: number };
}): Hono<AppEnv> {
  const { service, policies, deletion } = options;
  const app = new Hono<AppEnv>();
  app.put("/v1/models/:model", async (c) => {
    const name = modelNameSchema.safeParse(c.req.param("model"));
    if (!name.success) {
      const message = name.error.issues[0]?.message ?? "not a model name";
      throw new HoneError(`${message}.`, { code: "invalid_request", param: "model" });
    }
    return c.json(await service.put(name.data, await readJson(c, putModelSchema)));
  });
  app.delete("/v1/models/:model", async (c) => {
    const name = c.req.param("model");
    await deletion.delete(name, readQuery(c, deleteModelSchema).force === "true");
    return c.json({ id: name, object: "model", deleted: true } satisfies DeletedModel);
  });
  app.get("/v1/states", (c) =>
    c.json({
      object: "list",
      data: service.list(),
      has_more: false,
      adapters: options.memory(),
    }),
  );
  app.get("/v1/models/:model/state", (c) => c.json(service.info(c.req.param("model"))));
  app.get("/v1/models/:model/policies", (c) =>
    c.json({ object: "list", data: policies.list(c.req.param("model")), has_more: false }),
  );
  app.get("/v1/models/:model/policies/:step", async (c) =>
    c.json(await policies.detail(c.req.param("model"), stepOf(c.req.param("step")))),
  );
  app.patch("/v1/models/:model/policies/:step", async (c) => {
    const { pinned } = await readJson(c, patchPolicySchema);
    return c.json(await policies.pin(c.req.param("model"), stepOf(c.req.param("step")), pinned));
  });
  app.get("/v1/models/:model/policies/:step/files/:name", async (c) => {
    const { model, step, name } = c.req.param();
    const file = await policies.file(model, stepOf(step), name);
    const headers = {
      "content-type": "application/octet-stream",
      "content-length": String(file.bytes),
    };
    // HEAD comes here too. Nobody reads its body, so a file that was opened for it would stay open.
    if (c.req.method === "HEAD") return c.body(null, 200, headers);
    // The file is opened before the response begins. Retention may remove it from then on: it can still be read.
    return c.body(await file.open(), 200, headers);
  });
  return app;
}

function stepOf(text: string): number {
  if (/^(0|[1-9]\d{0,8})$/.test(text)) return Number(text);
  throw new HoneError(`"${text.slice(0, 40)}" is not a step: policies are counted from 0.`, {
    code: "invalid_request",
    param: "step",
  });
}
