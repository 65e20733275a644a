// A run whose server is killed three times: while the base answers, while a batch is played, while a step trains.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OperationEvent } from "@hone/core";
import { afterEach, beforeEach, expect, it, onTestFinished, vi } from "vitest";
import {
  modelInfo,
  operation,
  rolloutRoutes,
  send,
  startRouteServer,
  type Handler,
} from "../testing/route-server.ts";
import type { RunEvent } from "./run-event.ts";
import { defineTask } from "./task.ts";
import { trainRun } from "./train-run.ts";

let server: Awaited<ReturnType<typeof startRouteServer>>;
let out: string;
const absences: Promise<void>[] = [];
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "hone-away-"));
});
afterEach(async () => {
  await Promise.all(absences.splice(0));
  await server.close();
  await rm(out, { recursive: true });
});

it("goes on when its server is back, and counts nothing twice", async () => {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  let learnt = 0;
  let cursor: unknown = null;
  const state: Handler = (_, response) => send(response, { ...modelInfo(cursor), learnt });
  const text = (event: OperationEvent) => `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`;
  const told = () => emit.mock.calls.map(([message]) => String(message));
  const noticed = () => told().filter((one) => /does not answer .* up to 15 minutes/.test(one));
  const leave = () => {
    const nth = absences.length + 1;
    absences.push(server.away(() => noticed().length === nth));
  };
  server = await startRouteServer([
    ["(PUT /v1/models/m|GET /v1/models/m/state)", state],
    ["GET /v1/models/m/policies/1", (_, response) => send(response, { checkpoint: "models/m/1" })],
    [
      "POST /v1/models/m/operations",
      ({ body }, response) => {
        cursor = body.op.cursor;
        send(response, operation("running"));
      },
    ],
    ["GET /v1/operations/op_1", (_, response) => send(response, operation("running"))],
    [
      "GET /v1/operations/op_1/events",
      ({ headers }, response) => {
        const playing = { type: "stage" as const, stage: "forward" as never, seconds: 4 };
        response.writeHead(200, { "content-type": "text/event-stream" });
        if (headers["last-event-id"] === undefined) {
          return response.write(text({ ...playing, seq: 1, at: 1 }), leave);
        }
        learnt = 1;
        const ended = { type: "ended" as const, operation: operation("succeeded") };
        return response.end(text({ ...ended, seq: 2, at: 2 }));
      },
    ],
    ...rolloutRoutes().routes,
  ]);

  const played: string[] = [];
  const seeds = new Map<string, Set<unknown>>();
  const task = defineTask({
    train: ["a", "b"],
    heldOut: ["c", "d"],
    async rollout(model, scenario: string, { seed }) {
      played.push(scenario);
      seeds.set(scenario, (seeds.get(scenario) ?? new Set()).add(seed));
      const { baseURL, fetch, model: name } = model.connection();
      const isCutOff = played.length === 2 || played.length === 5;
      if (isCutOff) leave();
      const messages = [{ role: "user", content: "?" }];
      const body = JSON.stringify({ model: name, messages });
      await fetch(`${baseURL}/chat/completions`, { method: "POST", body });
      return { reward: played.length % 2, metrics: { cost_usd: 1 } };
    },
    options: { steps: 1, groupsPerStep: 1, groupSize: 3, concurrency: 1, verdict: "sampled" },
  });
  const events: RunEvent[] = [];
  const summary = await trainRun(task, {
    ...{ name: "m", out, ungated: true, hone: server.hone({ maxRetries: 0 }) },
    onEvent: (event) => void events.push(event),
  });

  // The second of the base's two answers and the second of the batch's three rollouts were played twice.
  const [first] = played.slice(3);
  expect(played).toEqual(["c", "d", "d", first, first, first, first, "c", "d"]);
  // With the seeds that they had.
  expect([...seeds].map(([scenario, given]) => [scenario, given.size])).toEqual([
    ...[
      ["c", 1],
      ["d", 1],
      [first, 3],
    ],
  ]);
  expect(summary).toMatchObject({ trained: 1, starts: 1, usd: 7 });
  expect(summary.stages["training: forward"]).toBe(4);
  const lines = (await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
  const steps = lines.map((line) => JSON.parse(line) as { type: string; failed?: number });
  expect(steps.filter(({ type }) => type === "step")).toMatchObject([{ rollouts: 3, failed: 0 }]);
  expect(server.seen("POST /v1/models/m/operations")).toHaveLength(1);
  expect(noticed()).toHaveLength(3);
  expect(told().filter((one) => /is back after/.test(one))).toHaveLength(3);
});

it.each([
  [0, /^1 of 2 rollouts failed and maxExceptions allows 0\. .*connection_failed/, 0],
  [1000, /did not answer for 1 s \(.*Start it again on its data directory/, 1],
])("waits %i ms for a server that goes away", async (serverWaitMs, message, warnings) => {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  const state: Handler = (_, response) => send(response, modelInfo(null));
  server = await startRouteServer([
    ["(PUT /v1/models/m|GET /v1/models/m/state)", state],
    ...rolloutRoutes().routes,
  ]);
  let played = 0;
  const task = defineTask({
    ...{ train: ["a"], heldOut: ["c", "d"], options: { concurrency: 1 } },
    async rollout(model) {
      played += 1;
      await server.close();
      const { baseURL, fetch, model: name } = model.connection();
      const body = JSON.stringify({ model: name, messages: [{ role: "user", content: "?" }] });
      await fetch(`${baseURL}/chat/completions`, { method: "POST", body });
      return 1;
    },
  });
  await expect(
    trainRun(task, {
      ...{ name: "m", out, ungated: true, serverWaitMs, hone: server.hone({ maxRetries: 0 }) },
    }),
  ).rejects.toThrow(message);
  expect(played).toBe(1);
  expect(emit).toHaveBeenCalledTimes(warnings);
});

it("says at once that there is no server where none has been", async () => {
  server = await startRouteServer([]);
  await server.close();
  const task = defineTask({ train: ["a"], heldOut: ["c", "d"], rollout: () => 1 });
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  await expect(
    trainRun(task, { name: "m", out, ungated: true, hone: server.hone({ maxRetries: 0 }) }),
  ).rejects.toMatchObject({ code: "connection_failed" });
  expect(emit).not.toHaveBeenCalled();
});
