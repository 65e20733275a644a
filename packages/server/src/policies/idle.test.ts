import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  type AdapterList,
  adapterList,
  ended,
  fileTrainer,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";

const adapterBytes = 1000;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let engine: AdapterList;
let server: TestState;
let memory = 3 * adapterBytes;
beforeEach(async () => {
  folder = await temporaryFolder();
  engine = adapterList();
  memory = 3 * adapterBytes;
  server = await open();
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

function open(): Promise<TestState> {
  const trainer = fileTrainer();
  const { initAdapter } = trainer;
  trainer.initAdapter = async (request) => {
    const files = await initAdapter(request);
    await writeFile(join(request.staging, "adapter_model.safetensors"), "w".repeat(adapterBytes));
    return files;
  };
  return openTestState(folder.path, { engine: () => engine, trainer, adapterMemory: memory });
}

async function make(...names: string[]): Promise<void> {
  for (const name of names) {
    expect((await server.call("PUT", `/v1/models/${name}`, {})).status).toBe(200);
  }
}

async function use(model: string): Promise<void> {
  const lease = await server.state.router.leaseForModel("local", model);
  expect(engine.names.has(lease.policy)).toBe(true);
  lease.release();
}

const loaded = (): string[] => [...engine.names].toSorted();

test("past the memory for adapters those used the longest time ago are unloaded, and come back when asked for", async () => {
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

test("what an open rollout is pinned to stays whatever it takes", async () => {
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

test("many who ask at once each get their policy, whatever has to go for it", async () => {
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

test("an engine that comes up anew gets what is needed and used last, not all there is", async () => {
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
  server = await server.reopen();
  expect(loaded()).toContain("b@0");
  expect(loaded()).toHaveLength(3);
});

test("a policy that is trained while its model is unloaded is published all the same", async () => {
  await server.state.close();
  memory = 1;
  server = await open();
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
