import { join } from "node:path";
import { HoneError } from "@hone/core";
import Database from "libsql";
import { expect } from "vitest";
import {
  ended,
  type FileTrainer,
  onDatabase,
  type Reply,
  rolloutsWith,
} from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest
  .extend("submit", ({ server }) => async (rollouts: object[]): Promise<string> => {
    return (await server.submit({ type: "train", groups: [{ id: "g", rollouts }] })).json.id;
  })
  .extend("abort", ({ server }) => (id: string): Promise<Reply> => {
    return server.call("POST", `/v1/operations/${id}/abort`);
  })
  .extend("status", ({ server }) => async (id: string): Promise<string> => {
    return (await server.call("GET", `/v1/operations/${id}`)).json.status;
  })
  .extend("refuse", ({ folder }) => (writes: string): Promise<void> => {
    const raise = "SELECT RAISE(ABORT, 'the test refuses this')";
    return onDatabase(folder, `CREATE TRIGGER refuse BEFORE ${writes} BEGIN ${raise}; END`);
  })
  .extend("refuseEnds", ({ refuse }) => (id: string): Promise<void> => {
    return refuse(`UPDATE ON operations WHEN NEW.id = '${id}' AND NEW.status = 'aborted'`);
  })
  .extend(
    "allow",
    ({ folder }) =>
      () =>
        onDatabase(folder, "DROP TRIGGER refuse"),
  )
  .extend("endsOf", ({ folder }) => (id: string): unknown[] => {
    const database = new Database(join(folder, "hone.db"));
    const rows = database
      .prepare(
        `SELECT seq FROM operation_events WHERE operation_id = ? AND data LIKE '%"type":"ended"%'`,
      )
      .all(id);
    database.close();
    return rows;
  });

/** Gives the second of two steps, which was aborted while it could not be written, when the first has ended. */
const testOfRefused = test.extend("endRefused", ({ trainer, server, abort, refuseEnds }) =>
  async (): Promise<string> => {
    const step = longStep(trainer);
    const first = await server.submitStep();
    const second = await server.submitStep();
    await step.began;
    await refuseEnds(second);
    await abort(second);
    step.finish();
    expect((await ended(server, first)).status).toBe("succeeded");
    return second;
  });

/** The next step trains until it is aborted, or until what is returned is called. */
function longStep(trainer: FileTrainer): { began: Promise<void>; finish: () => void } {
  let began: () => void = () => undefined;
  let finish: () => void = () => undefined;
  const training = new Promise<void>((resolve) => void (began = resolve));
  const finished = new Promise<void>((resolve) => void (finish = resolve));
  trainer.before.push((signal) => {
    began();
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(new HoneError("aborted", { code: "aborted" })));
    });
    return Promise.race([finished, aborted]);
  });
  return { began: training, finish };
}

test("an abort that cannot be written is refused, and the next one aborts", async ({
  trainer,
  server,
  abort,
  status,
  refuse,
  allow,
}) => {
  const step = longStep(trainer);
  const id = await server.submitStep();
  await step.began;
  await refuse("UPDATE ON operations");
  // Neither of two at once says that it was heard.
  const refusals = await Promise.all([abort(id), abort(id)]);
  expect(refusals.map((reply) => reply.status)).toEqual([500, 500]);
  expect(await status(id)).toBe("running");
  await allow();
  expect((await abort(id)).status).toBe(200);
  expect(await ended(server, id)).toMatchObject({ status: "aborted", error: { code: "aborted" } });
});

test("where the end of a queued operation cannot be written, aborting again ends it", async ({
  trainer,
  server,
  submit,
  abort,
  refuseEnds,
  allow,
  endsOf,
}) => {
  const step = longStep(trainer);
  const first = await server.submitStep();
  const members = await rolloutsWith(server, [0, 1]);
  const second = await submit(members);
  await step.began;
  await refuseEnds(second);
  expect(await abort(second)).toMatchObject({ status: 200, json: { status: "queued" } });
  await allow();
  const replies = await Promise.all([abort(second), abort(second)]);
  expect(replies.map(({ json }) => json.status)).toEqual(["aborted", "aborted"]);
  expect(endsOf(second)).toHaveLength(1);
  // Its rollouts are free, and the queue goes on behind it.
  const third = await submit(members);
  step.finish();
  expect((await ended(server, first)).status).toBe("succeeded");
  expect((await ended(server, third)).status).toBe("succeeded");
});

testOfRefused(
  "where nobody asks again, the queue ends it when it comes to it",
  async ({ trainer, server, endRefused, allow, endsOf }) => {
    const second = await endRefused();
    const third = server.submitStep();
    await allow();
    expect((await ended(server, second)).status).toBe("aborted");
    expect(endsOf(second)).toHaveLength(1);
    expect((await ended(server, await third)).status).toBe("succeeded");
    expect(trainer.trained).toHaveLength(2);
  },
);

testOfRefused(
  "an abort while the queue tries to write the same end ends it once",
  async ({ server, abort, endRefused, allow, endsOf }) => {
    const second = await endRefused();
    // The queue has it now.
    expect((await abort(second)).json.status).toBe("queued");
    await allow();
    await Promise.all([abort(second), abort(second)]);
    expect((await ended(server, second)).status).toBe("aborted");
    expect(endsOf(second)).toHaveLength(1);
  },
);
