import { describe, expect } from "vitest";
import { completionOf, type Reply } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const leaseMs = 600_000;

const test = stateTest
  .extend("options", ({ clock }) => ({ clock: () => clock.now, leaseMs }))
  .extend("create", ({ server }) => {
    return (body: object = {}, key?: string): Promise<Reply> =>
      server.call("POST", "/v1/rollouts", { model: "m", ...body }, key);
  });

describe("making rollouts", () => {
  test("a repeated request gives the same rollout, another body under its id is refused", async ({
    server,
    create,
  }) => {
    const body = { id: "mine", scenario: { seed: 1, board: [2, 4] } };
    const replies = await Promise.all(Array.from({ length: 20 }, () => create(body)));
    expect(new Set(replies.map(({ json }) => JSON.stringify(json))).size).toBe(1);
    expect(replies[0]?.json).toMatchObject({
      id: "mine",
      status: "open",
      policy: null,
      baseURL: "http://127.0.0.1:9/v1/rollouts/mine/v1",
    });
    expect(await create({ ...body, scenario: { seed: 2 } })).toMatchObject({
      status: 409,
      json: { error: { code: "rollout_exists", param: "id" } },
    });
    await server.reopen();
    expect((await create({ id: "mine", scenario: { board: [2, 4], seed: 1 } })).status).toBe(200);
  });

  test.for<[object, number, string]>([
    [{ model: "nobody" }, 404, "model_not_found"],
    [{ step: 1 }, 404, "policy_not_found"],
    [{ sacle: 1 }, 400, "unsupported_parameter"],
    [{ mode: "test" }, 400, "unsupported_parameter"],
  ])("%j is refused", async ([body, status, code], { create }) => {
    expect(await create(body)).toMatchObject({ status, json: { error: { code } } });
  });

  test("another key's rollout does not exist", async ({ server, create }) => {
    const { json } = await create();
    for (const [method, path] of [
      ["GET", ""],
      ["PATCH", ""],
      ["GET", "/trajectory"],
    ] as const) {
      const body = method === "PATCH" ? {} : undefined;
      expect(
        await server.call(method, `/v1/rollouts/${json.id}${path}`, body, "other"),
      ).toMatchObject({
        status: 404,
        json: { error: { code: "rollout_not_found" } },
      });
    }
    await expect(server.state.router.leaseForRollout("other", json.id, "m")).rejects.toMatchObject({
      code: "rollout_not_found",
    });
  });
});

describe("a rollout's life", () => {
  test("open, finished, and nothing else after that", async ({ server, create }) => {
    const { json } = await create();
    const path = `/v1/rollouts/${json.id}`;
    const patch = {
      status: "finished",
      reward: 0.5,
      metrics: { score: 7 },
      metadata: { a: "b" },
      logs: ["x"],
    };
    const first = await server.call("PATCH", path, patch);
    expect(first.json).toMatchObject({ status: "finished", reward: 0.5, leaseExpiresAt: null });
    // The client that did not hear the answer sends it again.
    expect(await server.call("PATCH", path, patch)).toEqual(first);
    expect((await server.call("PATCH", path, { status: "failed" })).json.error.code).toBe(
      "rollout_closed",
    );
    expect((await server.call("PATCH", path, {})).json.error.code).toBe("rollout_closed");
    await server.reopen();
    expect((await server.call("GET", path)).json).toMatchObject({
      status: "finished",
      reward: 0.5,
    });
    expect((await server.call("GET", `${path}/trajectory`)).json).toMatchObject({
      metrics: { score: 7 },
      metadata: { a: "b" },
      logs: ["x"],
      reward: 0.5,
      messages: [],
    });
  });

  test("a reward is a number or null, and what is not is named", async ({ server, create }) => {
    const { json } = await create();
    for (const reward of ["1", true]) {
      expect(await server.call("PATCH", `/v1/rollouts/${json.id}`, { reward })).toMatchObject({
        status: 400,
        json: { error: { code: "invalid_reward", param: "reward" } },
      });
    }
    const infinite = await server.app.request(`/v1/rollouts/${json.id}`, {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: '{"reward": 1e999}',
    });
    expect(infinite.status).toBe(400);
  });

  test("silence for longer than the lease expires it and lets its policy go", async ({
    engine,
    server,
    clock,
    create,
  }) => {
    const { json } = await create();
    const path = `/v1/rollouts/${json.id}`;
    (await server.state.router.leaseForRollout("local", json.id, "m")).release();
    clock.now += leaseMs - 1;
    await server.state.sweep();
    expect((await server.call("PATCH", path, {})).json).toMatchObject({
      status: "open",
      policy: "m@0",
      leaseExpiresAt: clock.now + leaseMs,
    });
    clock.now += leaseMs;
    await server.state.sweep();
    expect((await server.call("GET", path)).json).toMatchObject({ status: "expired" });
    await expect(server.state.router.leaseForRollout("local", json.id, "m")).rejects.toMatchObject({
      code: "rollout_closed",
    });
    await server.train(4);
    expect([...engine.names].sort()).toEqual(["m@1", "m@2", "m@3", "m@4"]);
  });

  test("a call under it keeps it open for as long as it takes", async ({
    server,
    clock,
    create,
  }) => {
    const { json } = await create();
    const lease = await server.state.router.leaseForRollout("local", json.id, "m");
    clock.now += 10 * leaseMs;
    await server.state.sweep();
    expect((await server.call("GET", `/v1/rollouts/${json.id}`)).json.status).toBe("open");
    lease.release();
    lease.release();
    clock.now += leaseMs;
    await server.state.sweep();
    expect((await server.call("GET", `/v1/rollouts/${json.id}`)).json.status).toBe("expired");
  });

  test("a restart renews the leases and keeps the pins", async ({
    engine,
    server,
    clock,
    create,
  }) => {
    const { json } = await create();
    (await server.state.router.leaseForRollout("local", json.id, "m")).release();
    clock.now += leaseMs - 1;
    engine.names.clear();
    await server.reopen();
    clock.now += leaseMs - 1;
    await server.state.sweep();
    expect((await server.call("GET", `/v1/rollouts/${json.id}`)).json).toMatchObject({
      status: "open",
      policy: "m@0",
    });
    expect(engine.names).toEqual(new Set(["m@0"]));
  });
});

describe("which policy a call is sampled from", () => {
  test("the first completion pins the newest one; a rollout stays on it through publishes", async ({
    engine,
    server,
    create,
  }) => {
    const before = (await create()).json.id;
    const pinned = (await create()).json.id;
    (await server.state.router.leaseForRollout("local", pinned, "m")).release();
    await server.train(6);
    expect((await server.state.router.leaseForRollout("local", pinned, "m")).policy).toBe("m@0");
    expect((await server.state.router.leaseForRollout("local", before, "m")).policy).toBe("m@6");
    expect((await server.state.router.leaseForModel("local", "m")).policy).toBe("m@6");
    // Pinned, and the newest four.
    expect([...engine.names].sort()).toEqual(["m@0", "m@3", "m@4", "m@5", "m@6"]);
    await server.call("PATCH", `/v1/rollouts/${pinned}`, { status: "failed" });
    await server.train();
    expect(engine.names.has("m@0")).toBe(true); // its call is not over
  });

  test("a step can be asked for by the rollout or by the model's name, and is loaded again", async ({
    engine,
    server,
    create,
  }) => {
    await server.train(5);
    expect(engine.names.has("m@0")).toBe(false);
    const { json } = await create({ step: 0, mode: "eval" });
    const lease = await server.state.router.leaseForRollout("local", json.id, "m");
    expect(lease.policy).toBe("m@0");
    expect(engine.names.has("m@0")).toBe(true);
    expect((await server.state.router.leaseForModel("local", "m@1")).policy).toBe("m@1");
    expect((await server.state.router.leaseForModel("local", "base")).policy).toBe("base");
  });

  test.for<[string, string]>([
    ["other", "model_mismatch"],
    ["base", "model_mismatch"],
    ["m@7", "policy_not_found"],
    ["Not A Model", "model_mismatch"],
  ])("a rollout of m refuses the model %s", async ([ref, code], { server, create }) => {
    const { json } = await create();
    await expect(server.state.router.leaseForRollout("local", json.id, ref)).rejects.toMatchObject({
      code,
    });
  });

  test("names outside of rollouts", async ({ server }) => {
    const { router } = server.state;
    await expect(router.leaseForModel("local", "nobody")).rejects.toMatchObject({
      code: "model_not_found",
    });
    await expect(router.leaseForModel("local", "m@9")).rejects.toMatchObject({
      code: "policy_not_found",
    });
    await server.train();
    expect((await router.listModels()).map(({ id }) => id)).toEqual(["base", "m", "m@0", "m@1"]);
  });
});

test("the trajectory comes from the ledger", async ({ server, clock, create }) => {
  const { json } = await create();
  const lease = await server.state.router.leaseForRollout("local", json.id, "m");
  await server.state.ledger.append([completionOf(json.id, { id: "one", policy: lease.policy })]);
  await server.state.ledger.markDelivered(["one"]);
  clock.now += 250;
  await server.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished", reward: 1 });
  clock.now += 1000;
  expect((await server.call("GET", `/v1/rollouts/${json.id}/trajectory`)).json).toEqual({
    rolloutId: json.id,
    model: "m",
    policy: "m@0",
    messages: [
      { role: "user", content: "2 + 2?" },
      { role: "assistant", content: "4" },
    ],
    tools: null,
    // There is no renderer here that could tell what the ids spell.
    turns: [{ id: "one", message: 1, text: null, finish_reason: "stop" }],
    histories: [],
    reward: 1,
    metrics: {},
    metadata: {},
    logs: [],
    usage: { completions: 1, promptTokens: 3, completionTokens: 2, sequenceTokens: 5 },
    startedAt: 1_000_000,
    durationMs: 250,
  });
});
