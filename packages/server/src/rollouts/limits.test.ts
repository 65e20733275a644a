import { afterEach, beforeEach, expect, test } from "vitest";
import {
  adapterList,
  fileTrainer,
  openTestState,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let server: TestState;
let id: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  const engine = adapterList();
  server = await openTestState(folder.path, { engine: () => engine, trainer: fileTrainer() });
  await server.call("PUT", "/v1/models/m", {});
  id = (await server.call("POST", "/v1/rollouts", { model: "m" })).json.id;
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

const patch = (body: object) => server.call("PATCH", `/v1/rollouts/${id}`, body);
const left = async () => (await server.call("GET", `/v1/rollouts/${id}/trajectory`)).json;
const numbers = (count: number, prefix: string) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${prefix}${i}`, i]));

test("metadata is bounded over all requests, and the rollout can be ended", async () => {
  const statuses = [];
  for (let i = 0; i < 8; i++) {
    statuses.push((await patch({ metadata: { [`k${i}`]: "x".repeat(60_000) } })).status);
  }
  expect(statuses).toEqual([200, 200, 200, 200, 400, 400, 400, 400]);
  expect(Object.keys((await left()).metadata)).toEqual(["k0", "k1", "k2", "k3"]);
  expect((await patch({ status: "finished" })).json).toMatchObject({ status: "finished" });
});

test.each<[string, object, RegExp]>([
  ["metadata", { metadata: { a: "é".repeat(140_000) } }, /262144/],
  ["metadata", { metrics: numbers(2_049, "m"), metadata: numbers(2_048, "d") }, /4096/],
  ["logs", { logs: ["x".repeat(1_100_000)] }, /1048576/],
  ["error", { error: { type: "E", message: "x".repeat(1_100_000) } }, /1048576/],
])("too much of %s is refused, and changes nothing", async (param, body, limit) => {
  await patch({ metadata: { kept: 1 }, metrics: { kept: 1 }, logs: ["kept"] });
  const before = await left();
  const { status, json } = await patch({ reward: 1, status: "finished", ...body });
  expect({ status, param: json.error.param }).toEqual({ status: 400, param });
  expect(json.error.message).toMatch(limit);
  expect({ ...(await left()), durationMs: 0 }).toEqual({ ...before, durationMs: 0 });
  expect((await patch({ status: "failed" })).json.status).toBe("failed");
});
