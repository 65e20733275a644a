import { join } from "node:path";
import { HoneError } from "@hone/core";
import Database from "libsql";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  type AdapterList,
  adapterList,
  ended,
  type FileTrainer,
  fileTrainer,
  onDatabase,
  openTestState,
  rolloutsWith,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let engine: AdapterList;
let trainer: FileTrainer;
let server: TestState;
beforeEach(async () => {
  folder = await temporaryFolder();
  engine = adapterList();
  trainer = fileTrainer();
  server = await openTestState(folder.path, { engine: () => engine, trainer });
  await server.call("PUT", "/v1/models/m", {});
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

let tokens = 0;
async function submit(rollouts?: object[]): Promise<string> {
  const members = rollouts ?? (await rolloutsWith(server, [0, 1]));
  const op = { type: "train", groups: [{ id: "g", rollouts: members }] };
  const body = { clientToken: `t${tokens++}`, op };
  return (await server.call("POST", "/v1/models/m/operations", body)).json.id;
}
const abort = (id: string) => server.call("POST", `/v1/operations/${id}/abort`);
const status = async (id: string) => (await server.call("GET", `/v1/operations/${id}`)).json.status;

/** The next step trains until it is aborted, or until what is returned is called. */
function longStep(): { began: Promise<void>; finish: () => void } {
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

const refuse = (writes: string): Promise<void> =>
  onDatabase(
    folder.path,
    `CREATE TRIGGER refuse BEFORE ${writes} BEGIN SELECT RAISE(ABORT, 'the test refuses this'); END`,
  );
const refuseEnds = (id: string): Promise<void> =>
  refuse(`UPDATE ON operations WHEN NEW.id = '${id}' AND NEW.status = 'aborted'`);
const allow = () => onDatabase(folder.path, "DROP TRIGGER refuse");

const endsOf = (id: string): unknown[] => {
  const database = new Database(join(folder.path, "hone.db"));
  const rows = database
    .prepare(
      `SELECT seq FROM operation_events WHERE operation_id = ? AND data LIKE '%"type":"ended"%'`,
    )
    .all(id);
  database.close();
  return rows;
};

test("an abort that cannot be written is refused, and the next one aborts", async () => {
  const step = longStep();
  const id = await submit();
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

test("where the end of a queued operation cannot be written, aborting again ends it", async () => {
  const step = longStep();
  const first = await submit();
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

test("where nobody asks again, the queue ends it when it comes to it", async () => {
  const step = longStep();
  const first = await submit();
  const second = await submit();
  await step.began;
  await refuseEnds(second);
  await abort(second);
  step.finish();
  expect((await ended(server, first)).status).toBe("succeeded");
  const third = submit();
  await allow();
  expect((await ended(server, second)).status).toBe("aborted");
  expect(endsOf(second)).toHaveLength(1);
  expect((await ended(server, await third)).status).toBe("succeeded");
  expect(trainer.trained).toHaveLength(2);
});

test("an abort while the queue tries to write the same end ends it once", async () => {
  const step = longStep();
  const first = await submit();
  const second = await submit();
  await step.began;
  await refuseEnds(second);
  await abort(second);
  step.finish();
  expect((await ended(server, first)).status).toBe("succeeded");
  // The queue has it now.
  expect((await abort(second)).json.status).toBe("queued");
  await allow();
  await Promise.all([abort(second), abort(second)]);
  expect((await ended(server, second)).status).toBe("aborted");
  expect(endsOf(second)).toHaveLength(1);
});
