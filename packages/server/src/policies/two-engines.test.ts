import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";
import { startListedEngine, type ListedEngine } from "../testing/listed-engine.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let a: ListedEngine;
let b: ListedEngine;
let server: TestState;
beforeEach(async () => {
  folder = await temporaryFolder();
  [a, b] = await Promise.all([startListedEngine("a"), startListedEngine("b")]);
  server = await openTestState(folder.path, {
    engine: () => [a.engine, b.engine],
    trainer: fileTrainer(),
  });
  await server.engines.admit("engine 2");
  await server.call("PUT", "/v1/models/m", {});
});
afterEach(async () => {
  await server.state.close();
  await Promise.all([a.close(), b.close()]);
  await folder.remove();
});

let tokens = 0;
async function train(): Promise<void> {
  const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
  const body = { clientToken: `t${tokens++}`, op: { type: "train", groups } };
  const { json } = await server.call("POST", "/v1/models/m/operations", body);
  expect((await ended(server, json.id)).status).toBe("succeeded");
}
const served = async (): Promise<number> =>
  (await server.call("GET", "/v1/models/m/state")).json.served;
/** Where leases go that are held at the same time. */
function replicas(policy: string): string[] {
  const leases = [server.engines.lease(policy), server.engines.lease(policy)];
  for (const { release } of leases) release();
  return leases.map(({ replica }) => replica);
}

test("a step is served once both serve it from its checkpoint", async () => {
  await train();
  for (const { adapters } of [a, b]) {
    expect(adapters.get("m@1")).toBe(join(folder.path, "models/m/policies/1"));
  }
  expect(replicas("m@1")).toEqual(["engine", "engine 2"]);
});

test("one that cannot take a step is left out, and the step is served", async () => {
  b.refuses = 500;
  await train();
  expect(await served()).toBe(1);
  expect(replicas("m@1")).toEqual(["engine", "engine"]);
  await expect(server.engines.admit("engine 2")).rejects.toMatchObject({ code: "engine_error" });
  b.refuses = null;
  await server.engines.admit("engine 2");
  expect(replicas("m@1")).toEqual(["engine", "engine 2"]);
});

test("one that comes back as another process gets what the other serves", async () => {
  await train();
  server.engines.fence("engine 2");
  b.restart();
  await train();
  expect(await served()).toBe(2);
  b.calls.length = a.calls.length = 0;
  await server.engines.admit("engine 2");
  expect(a.calls).toEqual([]);
  expect([...b.adapters.keys()].toSorted()).toEqual(["m@0", "m@1", "m@2"]);
  expect(replicas("m@2")).toEqual(["engine", "engine 2"]);
});

test("where both are gone, the one that comes first gets what is needed, and the other the same", async () => {
  await train();
  await train();
  for (const [name, engine] of [["engine", a] as const, ["engine 2", b] as const]) {
    server.engines.fence(name);
    engine.restart();
  }
  expect(() => server.engines.lease("m@2")).toThrow("getting its policies");
  await server.engines.admit("engine 2");
  expect([...b.adapters.keys()]).toEqual(["m@2"]);
  await server.engines.admit("engine");
  expect([...a.adapters.keys()]).toEqual(["m@2"]);
  expect(replicas("m@2")).toEqual(["engine", "engine 2"]);
});
