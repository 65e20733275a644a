import { rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { describe, expect } from "vitest";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest
  .extend("rootOf", ({ folder }) => (step: number): string => {
    return join(folder, `models/m/policies/${step}`);
  })
  .extend("serve", ({ engine }) => (policy: string, root: string): void => {
    engine.names.add(policy);
    engine.roots.set(policy, root);
  });

describe("weights of another server under the same name", () => {
  test("give way to a step's own when it is published", async ({
    engine,
    server,
    rootOf,
    serve,
  }) => {
    serve("m@1", "/elsewhere/models/m/policies/1");
    engine.calls.length = 0;
    await server.train();
    expect(engine.calls).toEqual(["load m@1", "unload m@1", "load m@1"]);
    expect(engine.roots.get("m@1")).toBe(rootOf(1));
  });

  test("give way at the start", async ({ engine, server, rootOf }) => {
    await server.close();
    engine.roots.set("m@0", "/elsewhere/models/m/policies/0");
    engine.calls.length = 0;
    await server.open();
    expect(engine.calls).toEqual(["load m@0", "unload m@0", "load m@0"]);
    expect(engine.roots.get("m@0")).toBe(rootOf(0));
  });

  test("are not believed in the place of a data directory that was made anew", async ({
    folder,
    engine,
    server,
  }) => {
    await server.train();
    await server.close();
    for (const name of ["models", "hone.db", "hone.db-wal", "hone.db-shm"]) {
      await rm(join(folder, name), { recursive: true, force: true });
    }
    await server.open();
    await server.call("PUT", "/v1/models/m", {});
    engine.calls.length = 0;
    await server.train();
    expect(engine.calls).toEqual(["load m@1", "unload m@1", "load m@1"]);
  });

  test("are missed when they take a policy's place, and its own folder by another path is not", async ({
    folder,
    engine,
    server,
    rootOf,
  }) => {
    expect(await server.engines.missing("engine")).toEqual([]);
    const link = join(folder, "link");
    await symlink(join(folder, "models"), link);
    engine.roots.set("m@0", join(link, "m/policies/0"));
    expect(await server.engines.missing("engine")).toEqual([]);
    engine.roots.set("m@0", "/elsewhere/models/m/policies/0");
    expect(await server.engines.missing("engine")).toEqual(["m@0"]);
    await server.state.onEngineReady();
    expect(engine.roots.get("m@0")).toBe(rootOf(0));
  });

  test("do not become a policy even where the engine answers that it took ours", async ({
    engine,
    server,
  }) => {
    const { load } = engine;
    engine.load = (adapter) => load({ ...adapter, path: "/elsewhere" });
    const reply = await server.call("PUT", "/v1/models/n", {});
    expect(reply.json.error).toMatchObject({ code: "engine_error" });
    expect((await server.call("GET", "/v1/models/n/state")).json.served).toBe(-1);
  });
});

test("a policy that is lost alone is missed, and loaded again without the others", async ({
  engine,
  server,
}) => {
  await server.train();
  expect(await server.engines.missing("engine")).toEqual([]);
  engine.names.delete("m@1");
  expect(await server.engines.missing("engine")).toEqual(["m@1"]);
  engine.calls.length = 0;
  await server.state.onEngineReady();
  expect(engine.calls).toEqual(["load m@1"]);
});

test("asking for old policies one after the other keeps four, the one asked for and those in use", async ({
  engine,
  server,
}) => {
  for (let step = 1; step <= 7; step++) await server.train();
  const newest = ["m@4", "m@5", "m@6", "m@7"];
  expect([...engine.names]).toEqual(newest);
  const held = await server.state.router.leaseForModel("local", "m@0");
  for (const step of [1, 2, 3]) {
    const lease = await server.state.router.leaseForModel("local", `m@${step}`);
    expect([...engine.names]).toEqual([...newest, "m@0", `m@${step}`]);
    lease.release();
  }
  held.release();
  (await server.state.router.leaseForModel("local", "m@1")).release();
  expect([...engine.names]).toEqual([...newest, "m@1"]);
});

describe("a model whose adapter the engine refuses", () => {
  const refused = () => new HoneError("rank 32 is above 16", { code: "bad_adapter" });

  test("can be made again in another shape, and then no more", async ({ engine, server }) => {
    engine.failNext = refused();
    const wide = await server.call("PUT", "/v1/models/n", { lora: { r: 32 } });
    expect(wide).toMatchObject({ status: 422, json: { error: { code: "bad_adapter" } } });
    const narrow = await server.call("PUT", "/v1/models/n", { lora: { r: 16 }, seed: 2 });
    expect(narrow).toMatchObject({ status: 200, json: { lora: { r: 16 }, learnt: 0, served: 0 } });
    await server.reopen();
    expect((await server.call("GET", "/v1/models/n/state")).json).toEqual(narrow.json);
    expect((await server.call("GET", "/v1/models/n/policies")).json.data).toHaveLength(1);
    expect((await server.call("PUT", "/v1/models/n", { lora: { r: 32 } })).status).toBe(409);
  });

  test("does not keep the others from being served after a restart", async ({ engine, server }) => {
    const failure = () => new HoneError("it failed on the adapter", { code: "engine_error" });
    engine.failNext = failure();
    expect((await server.call("PUT", "/v1/models/a", { lora: { r: 32 } })).status).toBe(502);
    await server.close();
    engine.names.clear();
    const { load } = engine;
    engine.load = (adapter) =>
      adapter.policy === "a@0" ? Promise.reject(failure()) : load(adapter);
    await server.open();
    expect([...engine.names]).toEqual(["m@0"]);
  });
});

describe("a policy that was served, and over which the engine fails after a restart", () => {
  const failure = () => new HoneError("500 on the adapter", { code: "engine_error" });

  test("does not keep others from being served, and is tried again when it is asked for", async ({
    engine,
    server,
  }) => {
    await server.train();
    await server.call("PUT", "/v1/models/other", {});
    await server.close();
    engine.names.clear();
    const { load } = engine;
    engine.load = (adapter) =>
      adapter.policy === "m@1" ? Promise.reject(failure()) : load(adapter);
    await server.open();
    expect([...engine.names]).toEqual(["other@0"]);
    await expect(server.state.router.leaseForModel("local", "m")).rejects.toThrow("500 on the");
    engine.load = load;
    (await server.state.router.leaseForModel("local", "m")).release();
    expect([...engine.names]).toEqual(["other@0", "m@1"]);
  });

  test("does not keep the server from coming up where it is the only one: whoever asks for it is told", async ({
    engine,
    server,
  }) => {
    await server.close();
    engine.names.clear();
    const { load } = engine;
    engine.load = () => Promise.reject(failure());
    await server.open();
    expect(server.engines.status()[0]?.state).toBe("serving");
    const asked = server.state.router.leaseForModel("local", "m");
    await expect(asked).rejects.toMatchObject({ code: "engine_error", message: /500 on the/ });
    engine.load = load;
    (await server.state.router.leaseForModel("local", "m")).release();
    expect([...engine.names]).toEqual(["m@0"]);
  });

  test("keeps the engine from traffic where that does not answer for its base either", async ({
    engine,
    server,
  }) => {
    engine.names.clear();
    const { load, answers } = engine;
    engine.load = () => Promise.reject(failure());
    engine.answers = { prompt: [NaN], next: NaN };
    const admission = server.engines.admit("engine");
    await expect(admission).rejects.toMatchObject({ code: "engine_error", message: /500 on the/ });
    expect(server.engines.status()[0]?.state).toBe("away");
    Object.assign(engine, { load, answers });
    await server.engines.admit("engine");
    expect([...engine.names]).toEqual(["m@0"]);
  });
});
