import { existsSync } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { PolicyInfo } from "@hone/core";
import { describe, expect } from "vitest";
import { completionOf, ended, rolloutsWith } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

type Removed = { kind: string; name: string; bytes: number }[];

const test = stateTest
  .extend("options", ({ clock }) => ({ keep: 2, clock: () => clock.now, leaseMs: 1000 }))
  .extend("rootOf", ({ folder }) => (step: number): string => {
    return join(folder, `models/m/policies/${step}`);
  })
  .extend("folders", ({ folder }) => async (): Promise<number[]> => {
    const names = await readdir(join(folder, "models/m/policies"));
    return names.map(Number).sort((a, b) => a - b);
  })
  .extend("gc", ({ server }) => async (body: object = {}): Promise<Removed> => {
    const { status, json } = await server.call("POST", "/v1/gc", body);
    expect(status).toBe(200);
    return json.removed;
  })
  .extend("policies", ({ server }) => async (): Promise<PolicyInfo[]> => {
    return (await server.call("GET", "/v1/models/m/policies")).json.data;
  })
  .extend("evaluate", ({ server }) => async (step: number, reward: number): Promise<void> => {
    const { json } = await server.call("POST", "/v1/rollouts", { model: "m", mode: "eval", step });
    const lease = await server.state.router.leaseForRollout("local", json.id, "m");
    await server.state.ledger.append([completionOf(json.id, { policy: lease.policy })]);
    lease.release();
    await server.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished", reward });
  });

describe("retention", () => {
  test("keeps policy 0 and the newest; a removed one says so", async ({
    engine,
    server,
    clock,
    folders,
    gc,
    policies,
  }) => {
    await server.train(5);
    await gc();
    expect(await folders()).toEqual([0, 4, 5]);
    expect((await policies()).map(({ keptAs }) => keptAs)).toEqual([
      ["base"],
      [],
      [],
      [],
      ["newest"],
      ["learnt", "served", "newest"],
    ]);
    const [, first] = await policies();
    expect(first).toMatchObject({ step: 1, removedAt: clock.now, checkpoint: null, live: false });
    expect([...engine.names]).not.toContain("m@3");
    const refused = await server.call("POST", "/v1/rollouts", { model: "m", step: 2 });
    expect(refused).toMatchObject({ status: 404, json: { error: { code: "policy_not_found" } } });
    expect(refused.json.error.message).toContain("retention removed it");
    await expect(server.state.router.leaseForModel("local", "m@2")).rejects.toThrow(
      "retention removed it",
    );
    const listed = (await server.state.router.listModels()).map(({ id }) => id);
    expect(listed).toEqual(["base", "m", "m@0", "m@4", "m@5"]);
    // Names are not used again, and training goes on.
    await server.train();
    await server.reopen();
    expect((await policies()).map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(await folders()).toEqual([0, 5, 6]);
  });

  test("takes the optimizer's file before the policy, and what is left is whole", async ({
    engine,
    server,
    rootOf,
    gc,
  }) => {
    await server.close();
    await server.open({ keep: 4 });
    await server.train(4);
    await gc();
    const withOptimizer = [1, 2, 3, 4].filter((step) =>
      existsSync(join(rootOf(step), "optimizer.safetensors")),
    );
    expect(withOptimizer).toEqual([3, 4]);
    const { json } = await server.call("GET", "/v1/models/m/policies/1");
    expect(Object.keys(json.files)).toEqual(["adapter_model.safetensors"]);
    // Its hashes are checked when it is loaded.
    engine.names.clear();
    await server.state.onEngineReady();
    (await server.state.router.leaseForModel("local", "m@1")).release();
    expect(engine.names).toContain("m@1");
  });

  test("leaves what open rollouts and calls under way need, until they end", async ({
    server,
    clock,
    folders,
    gc,
  }) => {
    await server.train();
    const { json: pinned } = await server.call("POST", "/v1/rollouts", { model: "m" });
    (await server.state.router.leaseForRollout("local", pinned.id, "m")).release();
    await server.train();
    const { json: named } = await server.call("POST", "/v1/rollouts", { model: "m", step: 2 });
    await server.train();
    const call = await server.state.router.leaseForModel("local", "m@3");
    await server.train(3);
    expect(await gc()).toEqual([]);
    expect(await folders()).toEqual([0, 1, 2, 3, 5, 6]);
    await server.reopen();
    call.release();
    await server.call("PATCH", `/v1/rollouts/${pinned.id}`, { status: "failed" });
    await gc();
    expect(await folders()).toEqual([0, 2, 5, 6]);
    clock.now += 2000;
    await server.state.sweep();
    expect((await server.call("GET", `/v1/rollouts/${named.id}`)).json.status).toBe("expired");
    await gc();
    expect(await folders()).toEqual([0, 5, 6]);
  });

  test.for([
    { type: "distill", teacher: { model: "m", policy: 1 } },
    { type: "grpo", beta: 0.1, reference: 1 },
  ])(
    "leaves what an operation in the queue will read, until that has ended: %j",
    async (config, { server, trainer, folders, gc }) => {
      await server.train();
      let go = (): void => undefined;
      trainer.before.push(() => new Promise((resolve) => (go = resolve)));
      const before = [];
      for (let step = 0; step < 3; step++) before.push(await server.submitStep());
      const reader = await server.submitStep({ config });
      await expect.poll(() => trainer.before.length).toBe(0);
      go();
      for (const id of before) await ended(server, id);
      const { status, error } = await ended(server, reader);
      expect({ status, error }).toEqual({ status: "succeeded", error: null });
      await gc();
      expect(await folders()).toEqual([0, 4, 5]);
    },
  );

  test("leaves what is pinned, and the one that did best in evaluations", async ({
    server,
    folders,
    gc,
    evaluate,
  }) => {
    await server.train();
    await server.call("PATCH", "/v1/models/m/policies/1", { pinned: true });
    await server.train();
    await evaluate(2, 0.9);
    await server.train();
    await evaluate(3, 0.5);
    await server.train(3);
    await gc();
    expect(await folders()).toEqual([0, 1, 2, 5, 6]);
    const { json } = await server.call("GET", "/v1/models/m/policies/2");
    expect(json).toMatchObject({ keptAs: ["best"], evaluated: { rollouts: 1, reward: 0.9 } });
    await server.reopen();
    await server.call("PATCH", "/v1/models/m/policies/1", { pinned: false });
    await evaluate(6, 0.9);
    await gc();
    expect(await folders()).toEqual([0, 5, 6]);
    const gone = await server.call("PATCH", "/v1/models/m/policies/1", { pinned: true });
    expect(gone).toMatchObject({ status: 404, json: { error: { code: "policy_not_found" } } });
  });

  test("removes nothing when all are kept", async ({ server, rootOf, gc }) => {
    await server.close();
    await server.open({ keep: "all" });
    await server.train(4);
    expect(await gc()).toEqual([]);
    expect(existsSync(join(rootOf(1), "optimizer.safetensors"))).toBe(true);
    expect((await gc({ keep: 1 })).map(({ name }) => name)).toEqual(["m@1", "m@2", "m@3"]);
  });
});

describe("gc", () => {
  test("says what it would remove, and removes just that", async ({
    folder,
    server,
    rootOf,
    folders,
    gc,
  }) => {
    await server.close();
    await server.open({ keep: "all" });
    await server.train(4);
    const staging = join(folder, "models/m/staging/dead-op_1-0");
    await mkdir(staging, { recursive: true });
    await writeFile(join(staging, "adapter_model.safetensors"), "12345");
    await mkdir(rootOf(9));
    const before = await folders();
    const planned = await gc({ dryRun: true, keep: 3 });
    expect(await folders()).toEqual(before);
    expect(existsSync(staging)).toBe(true);
    expect(planned.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
      "policy m@1",
      "optimizer m@2",
      "folder m@9",
      "staging m/staging/dead-op_1-0",
    ]);
    expect(planned.at(-1)?.bytes).toBe(5);
    expect(await gc({ keep: 3 })).toEqual(planned);
    expect(await folders()).toEqual([0, 2, 3, 4]);
    expect(existsSync(staging)).toBe(false);
    expect(await gc({ keep: 3 })).toEqual([]);
  });

  test("takes completions of rollouts that came to nothing, and no others", async ({
    server,
    clock,
    gc,
  }) => {
    const [kept] = await rolloutsWith(server, [1]);
    const [failed] = await rolloutsWith(server, [1]);
    const trained = await rolloutsWith(server, [0, 1]);
    const { json: silent } = await server.call("POST", "/v1/rollouts", { model: "m" });
    await server.state.ledger.append([completionOf(silent.id)]);
    const { json: lost } = await server.call("POST", "/v1/rollouts", { model: "m" });
    await server.state.ledger.append([completionOf(lost.id), completionOf(lost.id)]);
    await server.call("PATCH", `/v1/rollouts/${lost.id}`, { status: "failed" });
    clock.now += 1500;
    await server.state.sweep();
    const body = {
      clientToken: "t",
      op: { type: "train", groups: [{ id: "g", rollouts: trained }] },
    };
    await ended(server, (await server.call("POST", "/v1/models/m/operations", body)).json.id);
    expect(await gc({ olderThanMs: 2000 })).toEqual([]);
    clock.now += 1000;
    const [removed] = await gc({ olderThanMs: 2000 });
    expect(removed).toMatchObject({ kind: "completions", name: "1 rollouts" });
    await gc({ olderThanMs: 500 });
    await server.reopen();
    const count = async (id: string): Promise<number> =>
      (await server.call("GET", `/v1/rollouts/${id}`)).json.completions;
    expect(await count(lost.id)).toBe(0);
    expect(await count(silent.id)).toBe(0);
    for (const { rolloutId } of [kept!, failed!, ...trained])
      expect(await count(rolloutId)).toBe(1);
    const again = { ...body, clientToken: "t2" };
    expect((await server.call("POST", "/v1/models/m/operations", again)).json.error.code).toBe(
      "already_trained",
    );
  });

  test("takes many that ended in the same moment, part by part, and tells them all", async ({
    server,
    clock,
    gc,
  }) => {
    const rollouts = 600;
    for (let from = 0; from < rollouts; from += 200) {
      const ids = Array.from({ length: 200 }, (_, at) => `lost-${from + at}`);
      const begun = ids.map((id) => ({ id, model: "m" }));
      await server.call("POST", "/v1/batch/rollouts", { rollouts: begun });
      await server.state.ledger.append(ids.map((id) => completionOf(id)));
      const ends = ids.map((id) => ({ id, status: "failed" }));
      await server.call("PATCH", "/v1/batch/rollouts", { rollouts: ends });
    }
    clock.now += 1;
    const planned = await gc({ dryRun: true, olderThanMs: 0 });
    expect(planned).toMatchObject([{ kind: "completions", name: "600 rollouts" }]);
    expect(await gc({ olderThanMs: 0 })).toEqual(planned);
    expect(await gc({ olderThanMs: 0 })).toEqual([]);
    await server.reopen();
    for (const id of ["lost-0", "lost-250", "lost-599"]) {
      expect((await server.call("GET", `/v1/rollouts/${id}`)).json).toMatchObject({
        status: "failed",
        completions: 0,
      });
    }
  });

  test("gives the space back to the disk, and the server writes on", async ({ server, clock }) => {
    const { json: lost } = await server.call("POST", "/v1/rollouts", { model: "m" });
    const answer = { role: "assistant" as const, content: "x".repeat(1_000_000) };
    await server.state.ledger.append([completionOf(lost.id, { answer })]);
    await server.call("PATCH", `/v1/rollouts/${lost.id}`, { status: "failed" });
    clock.now += 1;
    const writes = [server.train(), server.train()];
    const { json } = await server.call("POST", "/v1/gc", { olderThanMs: 0 });
    expect(json.databaseBytes).toBeGreaterThan(900_000);
    await Promise.all(writes);
    expect((await server.call("POST", "/v1/gc", { dryRun: true })).json.bytes).toBe(0);
  });

  test.for([{ keep: 0 }, { olderThanMs: -1 }, { everything: true }, { dryRun: "yes" }])(
    "refuses %j",
    async (body, { server }) => {
      expect((await server.call("POST", "/v1/gc", body)).status).toBe(400);
    },
  );
});
