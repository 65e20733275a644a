import { createServer, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { HoneError } from "@hone/core";
import fc from "fast-check";
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { type TrainerEvent, workerCode } from "../ports/trainer.ts";
import { createTrainerClient } from "./client.ts";
import { readLines } from "./lines.ts";

/** Faults of a worker's connection, which the real worker does not have on demand. */
let server: Server | null = null;
let hangs = 0;
beforeEach(() => void (hangs = 0));
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = null;
});

async function against(listener: RequestListener, silenceMs?: number) {
  const listening = createServer(listener);
  server = listening;
  await new Promise<void>((resolve) => void listening.listen(0, "127.0.0.1", resolve));
  const { port } = listening.address() as AddressInfo;
  return createTrainerClient({
    baseURL: () => `http://127.0.0.1:${port}`,
    key: () => "k",
    silenceMs,
    onHang: () => void (hangs += 1),
  });
}

const train = (
  trainer: Awaited<ReturnType<typeof against>>,
  onEvent: (event: TrainerEvent) => void = () => undefined,
  signal = new AbortController().signal,
  onAccepted: () => void = () => undefined,
) =>
  trainer.train({ operationId: "op_1", stepData: new Uint8Array(8), onEvent, onAccepted, signal });
/** Of the event loop, in which no timer that a test has stopped is needed. */
const turn = () => new Promise((resolve) => setImmediate(resolve));
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}
const line = (value: object) => `${JSON.stringify(value)}\n`;
const microbatch = { event: "microbatch", done: 1, total: 2, tokens: 9 } as const;
const result = { event: "result", metrics: { loss: 0.5, entropy: null }, files: ["a"] };

test("events come as the worker tells them, the key goes with the batch", async () => {
  const seen: unknown[] = [];
  const trainer = await against((request, response) => {
    seen.push([request.url, request.headers.authorization, request.headers["content-type"]]);
    response.write(line({ event: "heartbeat", progress: 1 }));
    response.write(line(microbatch));
    response.end(line({ event: "stage", stage: "load", seconds: 0.1 }) + line(result));
  });
  const { metrics, files } = await train(trainer, (event) => seen.push(event));
  expect({ metrics, files }).toEqual({ metrics: { loss: 0.5, entropy: null }, files: ["a"] });
  expect(seen).toEqual([
    ["/train", "Bearer k", "application/octet-stream"],
    microbatch,
    { event: "stage", stage: "load", seconds: 0.1 },
  ]);
});

test.each<[string, RequestListener, object]>([
  [
    "closes without a result",
    (_, response) => response.end(line(microbatch)),
    { code: "worker_unavailable" },
  ],
  ["dies", (request) => request.socket.destroy(), { code: "worker_unavailable" }],
  [
    "dies in the middle of a line",
    (request, response) => {
      response.write(`${line(microbatch)}{"event"`, () => request.socket.destroy());
    },
    { code: "worker_unavailable" },
  ],
  ["speaks another language", (_, response) => response.end("ok\n"), { code: "train_failed" }],
  [
    "ends with an error",
    (_, response) => {
      response.end(
        line({
          event: "error",
          error: { message: "Too far.", type: "x", code: "sampler_mismatch" },
        }),
      );
    },
    { code: "train_failed", message: "Too far. (sampler_mismatch)" },
  ],
  [
    "refuses the batch",
    (_, response) => {
      response.writeHead(400).end(JSON.stringify({ error: { message: "No.", code: "bad_batch" } }));
    },
    { code: "train_failed", message: "No. (bad_batch)" },
  ],
])("a worker that %s", async (_, listener, expected) => {
  const trainer = await against((request, response) => {
    request.resume().on("end", () => listener(request, response));
  });
  await expect(train(trainer)).rejects.toMatchObject(expected);
});

test("the worker's own code can be read from the error", async () => {
  const trainer = await against((_, response) => {
    response.writeHead(409).end(JSON.stringify({ error: { message: "Busy.", code: "busy" } }));
  });
  const error = await train(trainer).catch((reason: unknown) => reason);
  expect(workerCode(error)).toBe("busy");
  expect(workerCode(new HoneError("x", { code: "train_failed" }))).toBeNull();
});

test("silence is a hang; lines, however few, are not", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const parse = vi.spyOn(JSON, "parse");
  const heard = () => parse.mock.calls.filter(([text]) => text.includes("heartbeat")).length;
  onTestFinished(() => {
    vi.useRealTimers();
    parse.mockRestore();
  });
  let answer: ServerResponse | undefined;
  const trainer = await against((_, response) => void (answer = response), 200);
  let over = false;
  const outcome = train(trainer)
    .catch((error: unknown) => error)
    .finally(() => (over = true));
  await until(() => answer !== undefined);
  for (let lines = 1; lines <= 8; lines++) {
    vi.advanceTimersByTime(150);
    answer?.write(line({ event: "heartbeat" }));
    await until(() => over || heard() === lines);
  }
  vi.advanceTimersByTime(199);
  await turn();
  expect(over).toBe(false);
  expect(hangs).toBe(0);
  vi.advanceTimersByTime(1);
  // As one that died: the operation begins again on the worker that is started in its place.
  expect(await outcome).toMatchObject({
    code: "worker_unavailable",
    message: expect.stringContaining("said nothing for 0.2 s"),
  });
  expect(hangs).toBe(1);
});

test("an abort goes to the worker, which then ends the operation itself", async () => {
  const controller = new AbortController();
  const asked: string[] = [];
  let ending: () => void = () => undefined;
  const trainer = await against((request, response) => {
    asked.push(request.url ?? "");
    if (request.url === "/train") {
      response.write(line(microbatch));
      ending = () => {
        response.end(
          line({ event: "error", error: { message: "aborted", type: "x", code: "aborted" } }),
        );
      };
    } else {
      response.end("{}");
      ending();
    }
  });
  const running = train(trainer, () => controller.abort(), controller.signal);
  await expect(running).rejects.toMatchObject({ code: "aborted" });
  expect(asked).toEqual(["/train", "/train/op_1/abort"]);
  const before = asked.length;
  await expect(train(trainer, undefined, controller.signal)).rejects.toMatchObject({
    code: "aborted",
  });
  await delay(20);
  expect(asked.length).toBe(before);
});

test.each([
  ["that still speaks is left alone", true, 0],
  ["that says nothing any more is ended", false, 1],
])("a worker late with an abort %s", async (_, speaks, expected) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const parse = vi.spyOn(JSON, "parse");
  const heard = () => parse.mock.calls.filter(([text]) => text.includes("heartbeat")).length;
  onTestFinished(() => {
    vi.useRealTimers();
    parse.mockRestore();
  });
  const controller = new AbortController();
  let answer: ServerResponse | undefined;
  let asked = false;
  const trainer = await against((request, response) => {
    if (request.url === "/train") {
      answer = response;
      response.write(line(microbatch));
    } else {
      asked = true;
      response.end("{}");
    }
  });
  const outcome = train(trainer, () => controller.abort(), controller.signal).catch(
    (error: unknown) => error,
  );
  await until(() => asked);
  if (speaks) {
    answer?.write(line({ event: "heartbeat" }));
    await until(() => heard() === 1);
  }
  vi.advanceTimersByTime(30_000);
  expect(await outcome).toMatchObject({ code: "aborted" });
  expect(hangs).toBe(expected);
});

test("a worker that is not there, by its socket or by its supervisor", async () => {
  const trainer = createTrainerClient({ baseURL: () => "http://127.0.0.1:1", key: () => "k" });
  await expect(train(trainer)).rejects.toMatchObject({ code: "worker_unavailable" });
  const restarting = createTrainerClient({
    baseURL() {
      throw new HoneError("restarting", { code: "worker_unavailable" });
    },
    key: () => "k",
  });
  await expect(train(restarting)).rejects.toMatchObject({
    code: "worker_unavailable",
    message: "restarting",
  });
  const fresh = { staging: "/tmp", r: 1, alpha: 1, seed: 0 };
  await expect(restarting.initAdapter(fresh)).rejects.toMatchObject({ code: "worker_unavailable" });
});

test("lines do not depend on where the chunks end", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc
          .string({ unit: "grapheme", minLength: 1 })
          .filter((s) => s.trim() !== "" && !s.includes("\n")),
      ),
      fc.integer({ min: 1, max: 7 }),
      async (texts, size) => {
        const bytes = Buffer.from(texts.map((text) => `${text}\n`).join(""));
        async function* chunks() {
          for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
        }
        const read: string[] = [];
        for await (const text of readLines(chunks())) read.push(text);
        expect(read).toEqual(texts);
      },
    ),
  );
});
