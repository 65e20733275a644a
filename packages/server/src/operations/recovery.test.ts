import { appendFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import { describe, expect } from "vitest";
import { WorkerFault } from "../ports/trainer.ts";
import type { EventLog } from "./events.ts";
import type { Operations } from "./operations.ts";
import { operationRoutes } from "./routes.ts";
import { ended, type Reply } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const Database = createRequire(import.meta.url)("libsql") as typeof import("libsql");

interface Told {
  seq: number;
  type: string | undefined;
  data: Reply["json"];
}

const test = stateTest
  /** Events of an operation as an SSE client reads them, until `stop` or the end. */
  .extend("events", ({ server }) => {
    return async (id: string, after?: number, stop = Infinity): Promise<Told[]> => {
      const headers: Record<string, string> =
        after === undefined ? {} : { "last-event-id": String(after) };
      const response = await server.app.request(`/v1/operations/${id}/events`, { headers });
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      const read = (): Told[] =>
        [...text.matchAll(/^id: (\d+)\nevent: (\w+)\ndata: (.*)\n\n/gm)].map(
          ([, seq, type, data]) => ({ seq: Number(seq), type, data: JSON.parse(data!) }),
        );
      while (read().length < stop) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
      }
      await reader.cancel();
      return read();
    };
  });

const died = () => new HoneError("the worker died", { code: "worker_unavailable" });

/** What the worker is sent with the tensors. */
function configOf(stepData: Uint8Array): { plan: number[][][] } {
  const bytes = Buffer.from(stepData);
  const header = bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE()));
  return JSON.parse(JSON.parse(header).__metadata__.config);
}

describe("events", () => {
  test("tell a step from its beginning to its end, and are resumed with none twice", async ({
    server,
    events,
  }) => {
    const id = await server.submitStep();
    const live = await events(id);
    expect(live.map(({ seq }) => seq)).toEqual(live.map((_, i) => i + 1));
    expect(live.map(({ type, data }) => (type === "stage" ? data.stage : type))).toEqual([
      "started",
      "resolve",
      "filter",
      "filtered",
      "plan",
      "pack",
      "progress",
      "forward_backward",
      "committed",
      "commit",
      "publish",
      "published",
      "ended",
    ]);
    expect(live.at(-1)?.data.operation).toEqual(await ended(server, id));
    for (let after = 0; after <= live.length; after++) {
      expect(await events(id, after)).toEqual(live.slice(after));
    }
    await server.reopen();
    expect(await events(id)).toEqual(live);
    expect(
      (
        await server.app.request(`/v1/operations/${id}/events`, {
          headers: { "last-event-id": "x" },
        })
      ).status,
    ).toBe(400);
  });

  test("a listener that leaves early gets the rest when it comes back", async ({
    trainer,
    server,
    events,
  }) => {
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => void (release = resolve));
    trainer.before.push(() => released);
    const id = await server.submitStep();
    const first = await events(id, undefined, 3);
    const rest = events(id, first.at(-1)!.seq);
    await new Promise((resolve) => setTimeout(resolve, 20));
    release();
    const all = [...first, ...(await rest)];
    expect(all.map(({ seq }) => seq)).toEqual(all.map((_, i) => i + 1));
    expect(all.at(-1)?.type).toBe("ended");
  });
});

test("a comment keeps a silent stream alive; who only asks for the headers begins none", async () => {
  let followed = 0;
  const log: EventLog = {
    append: () => Promise.resolve(),
    // oxlint-disable-next-line require-yield
    async *follow(_id, _after, signal) {
      followed++;
      await once(signal, "abort");
    },
  };
  const operations = { get: () => ({ id: "op_1" }) } as unknown as Operations;
  const list = () => Promise.reject(new Error("not asked for"));
  const app = operationRoutes({ operations, list, events: log, heartbeatMs: 5 });
  const head = await app.request("/v1/operations/op_1/events", { method: "HEAD" });
  expect(head.headers.get("content-type")).toContain("text/event-stream");
  expect(followed).toBe(0);
  const response = await app.request("/v1/operations/op_1/events");
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  expect(await reader.read()).toEqual({ done: false, value: ": alive\n\n" });
  expect((await reader.read()).value).toBe(": alive\n\n");
  await reader.cancel();
});

describe("the worker dies", () => {
  test("in a step: it is done again when the worker is back", async ({
    folder,
    engine,
    trainer,
    server,
    events,
  }) => {
    trainer.before.push(() => Promise.reject(died()));
    const id = await server.submitStep();
    const warned = await events(id, undefined, 7);
    expect(warned.map(({ type }) => type)).toContain("warning");
    expect((await server.model()).learnt).toBe(0);
    engine.names.clear();
    await server.state.onEngineReady();
    expect(await ended(server, id)).toMatchObject({ status: "succeeded", result: { step: 1 } });
    expect(engine.names).toEqual(new Set(["m@0", "m@1"]));
    expect(await readdir(join(folder, "models/m/staging"))).toEqual([]);
  });

  test("after it parted a micro-batch: the step that is redone has the parts in its plan", async ({
    trainer,
    server,
    events,
  }) => {
    const { train } = trainer;
    const plans: number[][][][] = [];
    trainer.train = async (request) => {
      plans.push(configOf(request.stepData).plan);
      if (plans.length > 1) return train(request);
      request.onAccepted();
      const into = plans[0]![0]![0]!.map((leaf) => [leaf]);
      // What was planned anew is stored, and no news.
      request.onEvent({ event: "split", into });
      request.onEvent({ event: "split", message: "too little memory", into: [into[0]!] });
      throw died();
    };
    const id = await server.submitStep();
    const warned = await events(id, undefined, 8);
    const warnings = warned.filter(({ type }) => type === "warning");
    expect(warnings.map(({ data }) => data.message)).toContain("too little memory");
    expect(warnings.every(({ data }) => typeof data.message === "string")).toBe(true);
    await server.reopen();
    await server.state.onEngineReady();
    expect(await ended(server, id)).toMatchObject({ status: "succeeded" });
    const [planned] = plans;
    expect(planned![0]![0]!.length).toBeGreaterThan(1);
    expect(plans.at(-1)).toEqual([planned![0]!.flat().map((leaf) => [leaf])]);
  });

  test("after it parted a micro-batch of forward_backward: the plan has the parts too", async ({
    trainer,
    server,
    events,
  }) => {
    const { train } = trainer;
    const plans: unknown[] = [];
    trainer.train = async (request) => {
      plans.push(configOf(request.stepData).plan);
      if (plans.length > 1) return train(request);
      request.onAccepted();
      request.onEvent({ event: "split", message: "too little memory", into: [[0], [1]] });
      throw died();
    };
    const datum = { tokens: [1, 2], targets: [2, 3] };
    const { json } = await server.submit({ type: "forward_backward", data: [datum, datum] });
    const told = await events(json.id, undefined, 5);
    expect(told.map(({ data }) => data.message)).toContain("too little memory");
    await server.reopen();
    await server.state.onEngineReady();
    expect(await ended(server, json.id)).toMatchObject({ status: "succeeded" });
    expect(plans).toEqual([[[0, 1]], [[0], [1]]]);
  });

  test("a worker that is away has not died of the step", async ({ trainer, server }) => {
    trainer.away = true;
    for (let i = 0; i < 5; i++) trainer.before.push(() => Promise.reject(died()));
    const id = await server.submitStep();
    while (trainer.before.length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      await server.state.onEngineReady();
    }
    expect(await ended(server, id)).toMatchObject({ status: "succeeded", result: { step: 1 } });
  });

  test("a step with an objective of one's own waits for it before it is planned", async ({
    trainer,
    server,
  }) => {
    const asked = { times: 0 };
    // Once at the request; away when the step is planned.
    trainer.checkObjective = async () => {
      if (++asked.times === 2) throw died();
      return { sha256: "0".repeat(64) };
    };
    const id = await server.submitStep({ config: { type: "custom", name: "mine" } });
    while (asked.times < 3) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      if (asked.times === 2) await server.state.onEngineReady();
    }
    expect(await ended(server, id)).toMatchObject({ status: "succeeded", result: { step: 1 } });
  });

  test("one that still ends an aborted step is asked again", async ({ trainer, server }) => {
    const cause = new WorkerFault("not yet", "busy");
    const busy = new HoneError("not yet", { code: "train_failed", cause });
    trainer.before.push(() => Promise.reject(busy));
    expect(await ended(server, await server.submitStep())).toMatchObject({ status: "succeeded" });
    expect(trainer.before).toEqual([]);
  });

  test("three times of the same step: the step is given up", async ({ trainer, server }) => {
    for (let i = 0; i < 3; i++) trainer.before.push(() => Promise.reject(died()));
    const id = await server.submitStep();
    for (;;) {
      const { json } = await server.call("GET", `/v1/operations/${id}`);
      if (json.status === "failed") break;
      await new Promise((resolve) => setTimeout(resolve, 10));
      await server.state.onEngineReady();
    }
    expect(await ended(server, id)).toMatchObject({ error: { code: "train_failed" } });
    expect((await ended(server, await server.submitStep())).status).toBe("succeeded");
  });
});

describe("the server ends", () => {
  test("in a step: the next one redoes it from the stored plan", async ({ trainer, server }) => {
    let began: () => void = () => undefined;
    const training = new Promise<void>((resolve) => void (began = resolve));
    trainer.before.push((signal) => {
      began();
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () =>
          reject(new HoneError("aborted", { code: "aborted" })),
        );
      });
    });
    const id = await server.submitStep({ cursor: 4 });
    await training;
    await server.reopen();
    expect(await ended(server, id)).toMatchObject({ status: "succeeded", result: { step: 1 } });
    expect(await server.model()).toMatchObject({ learnt: 1, served: 1, cursor: 4 });
    expect(trainer.trained).toHaveLength(1);
  });

  test("between the folder's name and the database: the commit is completed, not redone", async ({
    folder,
    engine,
    trainer,
    server,
    events,
  }) => {
    const id = await server.submitStep({ cursor: [1] });
    const before = await ended(server, id);
    await server.close();
    const database = new Database(join(folder, "hone.db"));
    database.exec(`UPDATE models SET learnt = 0, served = 0, cursor = NULL;
      DELETE FROM policies WHERE step = 1;
      UPDATE operations SET status = 'running', result = NULL;
      DELETE FROM operation_events WHERE data LIKE '%"committed"%' OR data LIKE '%ublish%' OR data LIKE '%"ended"%'`);
    database.close();
    engine.names.clear();
    await server.open();
    expect(await ended(server, id)).toEqual(before);
    expect(await server.model()).toMatchObject({ learnt: 1, served: 1, cursor: [1] });
    expect(trainer.trained).toHaveLength(1);
    expect((await events(id)).slice(-4).map(({ type }) => type)).toEqual([
      "committed",
      "stage",
      "published",
      "ended",
    ]);
  });

  test("between the commit and the publish: it rolls forward", async ({
    folder,
    engine,
    trainer,
    server,
  }) => {
    const id = await server.submitStep();
    await ended(server, id);
    await server.close();
    const database = new Database(join(folder, "hone.db"));
    database.exec("UPDATE models SET served = 0; UPDATE operations SET status = 'running'");
    database.close();
    engine.names.clear();
    await server.open();
    expect(await ended(server, id)).toMatchObject({
      status: "succeeded",
      result: { trained: true, step: 1 },
    });
    expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
    expect(trainer.trained).toHaveLength(1);
  });

  test("staging of an earlier boot is swept, and a folder that no commit leads to is replaced", async ({
    folder,
    server,
  }) => {
    await mkdir(join(folder, "models/m/staging/dead-op_1-0"), { recursive: true });
    await mkdir(join(folder, "models/m/policies/1"), { recursive: true });
    await writeFile(join(folder, "models/m/policies/1/adapter_model.safetensors"), "stump");
    await server.reopen();
    expect(await readdir(join(folder, "models/m/staging"))).toEqual([]);
    expect((await ended(server, await server.submitStep())).status).toBe("succeeded");
    const manifest = JSON.parse(
      await readFile(join(folder, "models/m/policies/1/manifest.json"), "utf8"),
    );
    expect(manifest).toMatchObject({ step: 1, parent: 0, model: "m", metrics: { loss: 0.5 } });
    expect(Object.keys(manifest.files)).toEqual([
      "adapter_model.safetensors",
      "optimizer.safetensors",
    ]);
  });
});

test("a damaged checkpoint never reaches the engine", async ({ folder, engine, server }) => {
  await ended(server, await server.submitStep());
  await appendFile(join(folder, "models/m/policies/0/adapter_model.safetensors"), "x");
  engine.names.clear();
  await server.reopen();
  expect(engine.names).toEqual(new Set(["m@1"]));
  await expect(server.state.router.leaseForModel("local", "m@0")).rejects.toMatchObject({
    code: "bad_adapter",
  });
  expect(engine.names).toEqual(new Set(["m@1"]));
});

test("a policy's manifest names the policy that it learnt from", async ({ folder, server }) => {
  const of = async (step: number) =>
    JSON.parse(await readFile(join(folder, `models/m/policies/${step}/manifest.json`), "utf8"));
  const config = { type: "distill", teacher: { model: "m", policy: 0 } };
  expect((await ended(server, await server.submitStep({ config }))).status).toBe("succeeded");
  const { sha256 } = (await of(0)).files["adapter_model.safetensors"];
  expect((await of(1)).teacher).toEqual({ model: "m", step: 0, sha256 });
  expect((await ended(server, await server.submitStep())).status).toBe("succeeded");
  expect(await of(2)).not.toHaveProperty("teacher");
});
