import { HoneError } from "@hone/core";
import { beforeEach, expect, test } from "vitest";
import { silent } from "../testing/fixtures.ts";
import { createQueue, type OperationQueue } from "./queue.ts";
import { isOver, type OperationRecord } from "./records.ts";

/** What was begun and ended, in order. */
let told: string[];
/** Ends the run of an operation, as its kind would. */
let finish: Map<string, () => void>;
let diskFull: boolean;
let queue: OperationQueue;
beforeEach(() => {
  told = [];
  finish = new Map();
  diskFull = false;
  const end = (record: OperationRecord, status: OperationRecord["status"]): void => {
    record.status = status;
    told.push(`${record.id} ${status}`);
  };
  queue = createQueue({
    async run(record, signal) {
      told.push(`${record.id} begins`);
      record.status = "running";
      if (!signal.aborted) {
        await new Promise<void>((resolve) => {
          finish.set(record.id, resolve);
          signal.addEventListener("abort", () => resolve());
        });
      }
      end(record, signal.aborted ? "aborted" : "succeeded");
    },
    async endUnbegun(record) {
      await turn();
      if (!diskFull) end(record, "aborted");
    },
    async writeAbort(record) {
      await turn();
      if (diskFull) throw new HoneError("no space", { code: "disk_full" });
      record.abortRequested = true;
    },
    log: silent,
  });
});

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const ids = (model?: string): string[] => queue.unfinished(model).map(({ id }) => id);

function add(id: string, given: Partial<OperationRecord> = {}): OperationRecord {
  const record: OperationRecord = {
    id,
    model: id.slice(0, 1),
    keyId: "k",
    clientToken: id,
    bodySha: "",
    expectedStep: null,
    op: { type: "publish" },
    createdAt: 0,
    status: "queued",
    fromStep: null,
    work: null,
    result: null,
    error: null,
    deaths: 0,
    abortRequested: false,
    ...given,
  };
  queue.add(record);
  return record;
}

test("the operations of a model run one after the other, those of others beside them", async () => {
  for (const id of ["a1", "b1", "a2"]) add(id);
  await turn();
  expect(told).toEqual([]);
  queue.start();
  await turn();
  expect(told).toEqual(["a1 begins", "b1 begins"]);
  finish.get("a1")?.();
  await turn();
  expect(told.slice(2)).toEqual(["a1 succeeded", "a2 begins"]);
  expect([ids("a"), ids("b"), queue.find("a1")]).toEqual([["a2"], ["b1"], undefined]);
});

test("an abort ends what waits at once, and what runs by its signal", async () => {
  for (const id of ["a1", "a2", "a3"]) add(id);
  queue.start();
  await Promise.all([queue.abort("a2"), queue.abort("a2")]);
  expect(told).toEqual(["a1 begins", "a2 aborted"]);
  expect(ids()).toEqual(["a1", "a3"]);
  await queue.abort("a1");
  await turn();
  expect(told.slice(2)).toEqual(["a1 aborted", "a3 begins"]);
});

test("the queue waits for one that is leaving, and goes on behind it", async () => {
  const first = add("a1", { abortRequested: true });
  add("a2");
  const leaving = queue.abort("a1");
  queue.start();
  expect(told).toEqual([]);
  await leaving;
  await turn();
  expect(told).toEqual(["a1 aborted", "a2 begins"]);
  expect(isOver(first)).toBe(true);
});

test("one whose end cannot be written has its turn, and is aborted then", async () => {
  add("a1", { abortRequested: true });
  diskFull = true;
  const leaving = queue.abort("a1");
  queue.start();
  await leaving;
  await queue.idle("a");
  expect(told).toEqual(["a1 begins", "a1 aborted"]);
});

test("an end that cannot be written can be asked for again", async () => {
  add("a1", { abortRequested: true });
  diskFull = true;
  await queue.abort("a1");
  expect([told, ids()]).toEqual([[], ["a1"]]);
  diskFull = false;
  await queue.abort("a1");
  expect([told, ids()]).toEqual([["a1 aborted"], []]);
});

test("an abort that cannot be written was not heard", async () => {
  add("a1");
  queue.start();
  diskFull = true;
  await expect(queue.abort("a1")).rejects.toMatchObject({ code: "disk_full" });
  expect(told).toEqual(["a1 begins"]);
  diskFull = false;
  await queue.abort("a1");
  await queue.idle("a");
  expect(told.at(-1)).toBe("a1 aborted");
});

test("what an earlier server had begun is ended by its turn alone", async () => {
  const record = add("a1", { status: "running" });
  await queue.abort("a1");
  expect([told, record.status]).toEqual([[], "running"]);
  queue.start();
  await queue.idle("a");
  expect(told).toEqual(["a1 begins", "a1 aborted"]);
});

test("after the close nothing begins", async () => {
  add("a1");
  add("a2");
  queue.start();
  await queue.close();
  queue.start();
  await turn();
  expect(told).toEqual(["a1 begins", "a1 aborted"]);
});
