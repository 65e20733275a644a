import { join } from "node:path";
import { expect } from "vitest";
import { startListedEngine, type ListedEngine } from "../testing/listed-engine.ts";
import { sampleOne } from "../testing/sampling.ts";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest
  // oxlint-disable-next-line no-empty-pattern
  .extend("a", async ({}, { onCleanup }): Promise<ListedEngine> => {
    const engine = await startListedEngine("a");
    onCleanup(() => engine.close());
    return engine;
  })
  // oxlint-disable-next-line no-empty-pattern
  .extend("b", async ({}, { onCleanup }): Promise<ListedEngine> => {
    const engine = await startListedEngine("b");
    onCleanup(() => engine.close());
    return engine;
  })
  .extend("engines", ({ a, b }) => [a.engine, b.engine])
  .extend("options", ({ clock }) => ({ clock: () => clock.now }))
  /** Where leases go that are held at the same time. */
  .extend("replicas", ({ server }) => (policy: string): string[] => {
    const leases = [server.engines.lease(policy), server.engines.lease(policy)];
    for (const { release } of leases) release();
    return leases.map(({ replica }) => replica);
  });

test("a step is served once both serve it from its checkpoint", async ({
  folder,
  server,
  a,
  b,
  replicas,
}) => {
  await server.train();
  for (const { adapters } of [a, b]) {
    expect(adapters.get("m@1")).toBe(join(folder, "models/m/policies/1"));
  }
  expect(replicas("m@1")).toEqual(["engine", "engine 2"]);
});

test("one that cannot take a step is left out, and the step is served", async ({
  server,
  b,
  replicas,
}) => {
  b.refuses = 500;
  await server.train();
  expect((await server.model()).served).toBe(1);
  expect(replicas("m@1")).toEqual(["engine", "engine"]);
  await expect(server.engines.admit("engine 2")).rejects.toMatchObject({ code: "engine_error" });
  b.refuses = null;
  await server.engines.admit("engine 2");
  expect(replicas("m@1")).toEqual(["engine", "engine 2"]);
});

test("one that comes back as another process gets what the other serves", async ({
  server,
  a,
  b,
  replicas,
}) => {
  await server.train();
  server.engines.fence("engine 2");
  b.restart();
  await server.train();
  expect((await server.model()).served).toBe(2);
  b.calls.length = a.calls.length = 0;
  await server.engines.admit("engine 2");
  expect(a.calls).toEqual([]);
  expect([...b.adapters.keys()].toSorted()).toEqual(["m@0", "m@1", "m@2"]);
  expect(replicas("m@2")).toEqual(["engine", "engine 2"]);
});

test("where both are gone, the one that comes first gets what is needed, and the other the same", async ({
  server,
  a,
  b,
  replicas,
}) => {
  await server.train();
  await server.train();
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

test("a rollout has its place on an engine until it ends, is failed or expires", async ({
  server,
  clock,
}) => {
  await server.train();
  const places = () => server.engines.loads().map(({ rollouts }) => rollouts);
  const openOne = async (): Promise<string> => {
    const { id } = (await server.call("POST", "/v1/rollouts", { model: "m" })).json;
    await sampleOne(server.engines, {
      ...{ model: "m@1", prompt: [1] },
      affinity: { rollout: id, group: null },
    });
    return id;
  };
  const [finished, , failed] = [await openOne(), await openOne(), await openOne()];
  expect(places()).toEqual([2, 1]);
  await server.call("PATCH", `/v1/rollouts/${finished}`, { status: "finished", reward: 1 });
  await server.call("PATCH", `/v1/rollouts/${failed}`, { status: "failed" });
  expect(places()).toEqual([0, 1]);
  clock.now += 11 * 60_000;
  await server.state.sweep();
  expect(places()).toEqual([0, 0]);
});
