import { existsSync } from "node:fs";
import { join } from "node:path";
import { HoneError } from "@hone/core";
import Database from "libsql";
import { describe, expect } from "vitest";
import { completionOf, ended, onDatabase, rolloutsWith } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const gone = { id: "m", object: "model", deleted: true };

const test = stateTest
  .extend("models", ["m", "other"])
  .extend(
    "remove",
    ({ server }) =>
      (query = "") =>
        server.call("DELETE", `/v1/models/m${query}`),
  )
  .extend("listed", ({ server }) => async (): Promise<string[]> => {
    const { json } = await server.call("GET", "/v1/states");
    return json.data.map(({ name }: { name: string }) => name);
  })
  /** Resolves once no row names the model or belongs to what does. */
  .extend("cleared", ({ folder }) => async (): Promise<void> => {
    const uncleared = (): number | undefined => rows(folder)["uncleared"];
    await expect.poll(uncleared, { interval: 10, timeout: 60_000 }).toBe(0);
    expect(Object.values(rows(folder))).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });

/** Rows that name the model, or belong to what does. */
function rows(folder: string): Record<string, number> {
  const database = new Database(join(folder, "hone.db"));
  const count = (sql: string): number =>
    (database.prepare(`SELECT count(*) AS n FROM ${sql}`).get() as { n: number }).n;
  const left = {
    models: count("models WHERE name = 'm'"),
    policies: count("policies WHERE model = 'm'"),
    rollouts: count("rollouts WHERE model = 'm'"),
    completions: count("completions WHERE policy LIKE 'm@%'"),
    operations: count("operations WHERE model = 'm'"),
    events: count("operation_events"),
    evaluations: count("evaluations WHERE model = 'm'"),
    uncleared: count("deleted_models WHERE cleared_at IS NULL"),
  };
  database.close();
  return left;
}

test("a deleted model is gone from the engine, the disk and the database; others stay", async ({
  folder,
  engine,
  server,
  remove,
  listed,
  cleared,
}) => {
  await ended(server, await server.submitStep());
  await ended(server, await server.submitStep());
  const { json: evaluated } = await server.call("POST", "/v1/rollouts", {
    model: "m",
    mode: "eval",
  });
  (await server.state.router.leaseForRollout("local", evaluated.id, "m")).release();
  const end = { status: "finished", reward: 1 };
  await server.call("PATCH", `/v1/rollouts/${evaluated.id}`, end);
  const { json: kept } = await server.call("POST", "/v1/rollouts", { model: "other" });
  const many = Array.from({ length: 250 }, () => ({ model: "m" }));
  const { json: begun } = await server.call("POST", "/v1/batch/rollouts", { rollouts: many });
  const ids = (begun.data as { rollout: { id: string } }[]).map(({ rollout }) => rollout.id);
  const ends = ids.map((id) => ({ id, status: "finished" }));
  await server.call("PATCH", "/v1/batch/rollouts", { rollouts: ends });

  expect(await remove()).toEqual({ status: 200, json: gone });
  expect([...engine.names]).toEqual(["other@0"]);
  expect(existsSync(join(folder, "models/m"))).toBe(false);
  expect(existsSync(join(folder, "models/other/policies/0"))).toBe(true);
  await cleared();
  expect(await listed()).toEqual(["other"]);
  expect((await server.call("GET", `/v1/rollouts/${kept.id}`)).status).toBe(200);
  expect((await server.call("GET", `/v1/rollouts/${evaluated.id}`)).status).toBe(404);
  expect((await server.call("POST", "/v1/gc", {})).status).toBe(200);
});

test("a name never means other weights: it stays taken, also after a restart", async ({
  server,
  remove,
}) => {
  await remove();
  for (const again of [() => Promise.resolve(), () => server.reopen()]) {
    await again();
    const { status, json } = await server.call("PUT", "/v1/models/m", {});
    expect([status, json.error.code]).toEqual([409, "model_deleted"]);
    expect(json.error.message).toContain("Choose another name");
    const asked = server.state.router.leaseForModel("local", "m@0");
    await expect(asked).rejects.toMatchObject({ code: "model_not_found", message: /deleted/ });
    const made = await server.call("POST", "/v1/rollouts", { model: "m" });
    expect([made.status, made.json.error.code]).toEqual([404, "model_not_found"]);
    // Deleting it again changes nothing.
    expect(await remove()).toEqual({ status: 200, json: gone });
  }
  const unknown = await server.call("DELETE", "/v1/models/never");
  expect([unknown.status, unknown.json.error.code]).toEqual([404, "model_not_found"]);
  const misspelt = await server.call("DELETE", "/v1/models/other?forse=true");
  expect([misspelt.status, misspelt.json.error.code]).toEqual([400, "unsupported_parameter"]);
});

describe("a model in use", () => {
  test("is not deleted while a rollout is open or a call is under way", async ({
    server,
    remove,
    listed,
  }) => {
    const { json: open } = await server.call("POST", "/v1/rollouts", { model: "m" });
    const refused = await remove();
    expect([refused.status, refused.json.error.code]).toEqual([409, "model_busy"]);
    expect(refused.json.error.message).toContain("1 open rollout.");
    await server.call("PATCH", `/v1/rollouts/${open.id}`, { status: "finished" });
    const call = await server.state.router.leaseForModel("local", "m");
    expect((await remove()).json.error.message).toContain("1 call under way");
    expect(await listed()).toEqual(["m", "other"]);
    call.release();
    expect((await remove()).status).toBe(200);
  });

  test("is not deleted while it trains; by force its operations and rollouts end first", async ({
    trainer,
    server,
    remove,
    cleared,
  }) => {
    let begun: () => void = () => undefined;
    const running = new Promise<void>((resolve) => (begun = resolve));
    trainer.before.push(
      (signal) =>
        new Promise((_, reject) => {
          begun();
          signal.addEventListener(
            "abort",
            () => reject(new HoneError("aborted", { code: "aborted" })),
            { once: true },
          );
        }),
    );
    const [first, second] = [await server.submitStep(), await server.submitStep()];
    await running;
    const { json: open } = await server.call("POST", "/v1/rollouts", { model: "m" });
    const lease = await server.state.router.leaseForRollout("local", open.id, "m");
    expect((await remove()).json.error.message).toContain("2 operations, 1 open rollout");
    expect((await server.call("GET", `/v1/operations/${first}`)).json.status).toBe("running");

    expect(await remove("?force=true")).toEqual({ status: 200, json: gone });
    for (const id of [first, second]) {
      // Or gone already.
      const { status, json } = await server.call("GET", `/v1/operations/${id}`);
      if (status === 200) expect(json.status).toBe("aborted");
    }
    const rollout = (await server.call("GET", `/v1/rollouts/${open.id}`)).json;
    expect(rollout.status).toBe("failed");
    // What the call that is under way writes yet goes too.
    await server.state.ledger.append([completionOf(open.id)]);
    lease.release();
    await cleared();
  });

  test("by force lets others make models while its step ends", async ({
    trainer,
    server,
    remove,
  }) => {
    let begun: () => void = () => undefined;
    const running = new Promise<void>((resolve) => (begun = resolve));
    let end: () => void = () => undefined;
    const ending = new Promise<void>((aborted) => {
      trainer.before.push(
        (signal) =>
          new Promise((_, reject) => {
            end = () => reject(new HoneError("aborted", { code: "aborted" }));
            signal.addEventListener("abort", () => aborted(), { once: true });
            begun();
          }),
      );
    });
    await server.submitStep();
    await running;
    const removed = remove("?force=true");
    await ending;
    expect((await server.call("PUT", "/v1/models/meanwhile", {})).status).toBe(200);
    end();
    expect((await removed).status).toBe(200);
  });

  test("that cannot be written down as deleted stays as it was", async ({
    folder,
    engine,
    server,
    remove,
    listed,
  }) => {
    await onDatabase(
      folder,
      "CREATE TRIGGER full BEFORE INSERT ON deleted_models BEGIN SELECT RAISE(ABORT, 'full'); END",
    );
    expect((await remove()).status).toBe(500);
    expect(await listed()).toEqual(["other", "m"]);
    expect([...engine.names]).toEqual(["m@0", "other@0"]);
    (await server.state.router.leaseForModel("local", "m")).release();
    await onDatabase(folder, "DROP TRIGGER full");
    expect((await remove()).status).toBe(200);
  });
});

test("an operation that was sent beside a deletion does not outlive it", async ({
  server,
  remove,
}) => {
  const groups = [{ id: "g", rollouts: await rolloutsWith(server, [0, 1]) }];
  const body = { clientToken: "race", op: { type: "train", groups } };
  const [deleted, submitted] = await Promise.all([
    remove(),
    server.call("POST", "/v1/models/m/operations", body),
  ]);
  // Whichever came first.
  if (submitted.status === 200) expect(deleted.status).toBe(409);
  else expect([deleted.status, submitted.status]).toEqual([200, 404]);
});

test("a start goes on with a deletion that was cut off, and takes leftovers out of a lasting engine", async ({
  folder,
  engine,
  server,
  cleared,
}) => {
  await ended(server, await server.submitStep());
  await server.close();
  const database = new Database(join(folder, "hone.db"));
  database.exec(
    "INSERT INTO deleted_models VALUES ('m', 1, NULL); DELETE FROM policies WHERE model = 'm'; DELETE FROM models WHERE name = 'm'",
  );
  database.close();
  engine.names.add("m@7");
  engine.roots.set("m@7", "/elsewhere/models/m/policies/7");
  await server.open();
  await cleared();
  expect(existsSync(join(folder, "models/m"))).toBe(false);
  // Another server's of the same name stays.
  expect([...engine.names].toSorted()).toEqual(["m@7", "other@0"]);
});
