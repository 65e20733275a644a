import { afterEach, beforeEach, expect, it } from "vitest";
import {
  putModel,
  send,
  sendError,
  startRouteServer,
  type RouteServer,
} from "./testing/route-server.ts";

let server: RouteServer;
beforeEach(async () => {
  server = await startRouteServer([
    putModel,
    ["GET .*", (_, response) => sendError(response, 404, "model_not_found", "no model")],
    ["DELETE .*", (_, response) => send(response, { id: "m", object: "model", deleted: true })],
  ]);
});
afterEach(() => server.close());

it("finds a model without making it, where it is told to", async () => {
  const hone = server.hone();
  expect((await hone.model({ name: "m", create: false })).name).toBe("m");
  await expect(hone.model({ name: "typo", create: false })).rejects.toMatchObject({
    code: "model_not_found",
  });
  expect(server.seen("PUT")).toEqual([]);
  await expect(hone.model({ name: "m", create: false, seed: 1 })).rejects.toThrow(/Leave seed out/);
});

it("deletes a model, whatever it is doing", async () => {
  await server.hone().deleteModel("m");
  expect(server.received.map(({ path }) => path)).toEqual(["/v1/models/m?force=true"]);
});
