import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { ended, fileTrainer, rolloutsWith } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const adapterBytes = 1000;
const memory = 3 * adapterBytes;

const test = stateTest
  .extend("options", { adapterMemory: memory })
  .extend("models", [])
  .extend("trainer", () => {
    const trainer = fileTrainer();
    const { initAdapter } = trainer;
    trainer.initAdapter = async (request) => {
      const files = await initAdapter(request);
      await writeFile(join(request.staging, "adapter_model.safetensors"), "w".repeat(adapterBytes));
      return files;
    };
    return trainer;
  })
  .extend("make", ({ server }) => async (...names: string[]): Promise<void> => {
    for (const name of names) {
      expect((await server.call("PUT", `/v1/models/${name}`, {})).status).toBe(200);
    }
  })
  .extend("use", ({ server, engine }) => async (model: string): Promise<void> => {
    const lease = await server.state.router.leaseForModel("local", model);
    expect(engine.names.has(lease.policy)).toBe(true);
    lease.release();
  })
  .extend(
    "loaded",
    ({ engine }) =>
      (): string[] =>
        [...engine.names].toSorted(),
  );

test("past the memory for adapters those used the longest time ago are unloaded, and come back when asked for", async ({
  server,
  make,
  use,
  loaded,
}) => {
  await make("a", "b", "c", "d");
  expect(loaded()).toEqual(["b@0", "c@0", "d@0"]);
  await use("b");
  await use("a");
  expect(loaded()).toEqual(["a@0", "b@0", "d@0"]);
  const { json } = await server.call("GET", "/v1/states");
  expect(json.adapters).toEqual({ bytes: 3 * adapterBytes, maxBytes: memory });
  expect(json.data.map(({ live }: { live: unknown }) => live)).toEqual([
    { policies: 1, bytes: adapterBytes },
    { policies: 1, bytes: adapterBytes },
    { policies: 0, bytes: 0 },
    { policies: 1, bytes: adapterBytes },
  ]);
  // The alias still says what is served: loading is not the user's business.
  expect(json.data[2]).toMatchObject({ name: "c", served: 0 });
  expect(await server.engines.missing("engine")).toEqual([]);
});

test("what an open rollout is pinned to stays whatever it takes", async ({
  server,
  make,
  use,
  loaded,
}) => {
  await make("a");
  const { json } = await server.call("POST", "/v1/rollouts", { model: "a" });
  const lease = await server.state.router.leaseForRollout("local", json.id, "a");
  lease.release();
  await make("b", "c", "d", "e");
  expect(loaded()).toEqual(["a@0", "d@0", "e@0"]);
  await server.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished" });
  await use("b");
  expect(loaded()).toEqual(["b@0", "d@0", "e@0"]);
});

test("many who ask at once each get their policy, whatever has to go for it", async ({
  engine,
  server,
  make,
  use,
  loaded,
}) => {
  const names = Array.from({ length: 12 }, (_, at) => `m${at}`);
  await make(...names);
  let wrong = 0;
  await Promise.all(
    names.flatMap((name) =>
      [1, 2, 3].map(async () => {
        const lease = await server.state.router.leaseForModel("local", name);
        for (let turn = 0; turn < 3; turn++) {
          if (!engine.names.has(lease.policy)) wrong++;
          await new Promise((resolve) => setImmediate(resolve));
        }
        lease.release();
      }),
    ),
  );
  expect(wrong).toBe(0);
  await use("m0");
  expect(loaded()).toHaveLength(3);
});

test("an engine that comes up anew gets what is needed and used last, not all there is", async ({
  engine,
  server,
  make,
  use,
  loaded,
}) => {
  await make("a", "b", "c", "d", "e");
  const { json } = await server.call("POST", "/v1/rollouts", { model: "b" });
  (await server.state.router.leaseForRollout("local", json.id, "b")).release();
  await use("d");
  await use("a");
  engine.names.clear();
  await server.state.onEngineReady();
  expect(loaded()).toEqual(["a@0", "b@0", "d@0"]);
  // What was used last is also what goes last.
  await use("c");
  expect(loaded()).toEqual(["a@0", "b@0", "c@0"]);
  engine.names.clear();
  await server.reopen();
  expect(loaded()).toContain("b@0");
  expect(loaded()).toHaveLength(3);
});

test("a policy that is trained while its model is unloaded is published all the same", async ({
  server,
  make,
  use,
  loaded,
}) => {
  await server.close();
  await server.open({ adapterMemory: 1 });
  await make("m", "other");
  expect(loaded()).toEqual(["other@0"]);
  const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
  await use("other");
  const body = { clientToken: "t", op: { type: "train", groups } };
  const { json } = await server.call("POST", "/v1/models/m/operations", body);
  expect((await ended(server, json.id)).status).toBe("succeeded");
  expect(loaded()).toEqual(["m@1"]);
  await use("m@0");
  expect(loaded()).toEqual(["m@0"]);
});
