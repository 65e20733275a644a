import type { OperationEvent, TrajectoryGroup } from "@hone/core";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { operation, putModel, send, sendError, startRouteServer } from "../testing/route-server.ts";
import type { Handler, RouteServer } from "../testing/route-server.ts";

let server: RouteServer;
afterEach(() => server.close());

const events: OperationEvent[] = [
  { type: "started", seq: 1, at: 1, step: 1 },
  { type: "progress", seq: 2, at: 2, done: 1, total: 2, tokens: 10 },
  { type: "progress", seq: 3, at: 3, done: 2, total: 2, tokens: 20 },
  { type: "ended", seq: 4, at: 4, operation: operation("succeeded") },
];
const text = (event: OperationEvent) => `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`;
const accepted: [string, Handler] = [
  "POST /v1/models/m/operations",
  (_, response) => send(response, operation("queued"), 202),
];
const still: [string, Handler] = [
  "GET /v1/operations/op_1",
  (_, response) => send(response, operation("running")),
];
const aborted: [string, Handler] = [
  "POST /v1/operations/op_1/abort",
  (_, response) => send(response, operation("aborted")),
];
function stream(handler: Handler): [string, Handler] {
  return [
    "GET /v1/operations/op_1/events",
    (request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      handler(request, response);
    },
  ];
}
const whole = stream((_, response) => response.end(events.map(text).join("")));

function group(reward: number | null, rolloutId: string | null = "ro_1"): TrajectoryGroup {
  const trajectory = {
    rolloutId,
    model: "m",
    policy: "m@0",
    messages: [],
    tools: null,
    histories: [],
    reward,
    metrics: {},
    metadata: {},
    logs: [],
    usage: { completions: 1, promptTokens: 1, completionTokens: 1 },
    startedAt: 1,
    durationMs: 1,
  };
  return {
    id: "grp_1",
    scenario: 1,
    trajectories: [trajectory],
    exceptions: [],
    metadata: {},
    metrics: {},
    logs: [],
  };
}

async function modelOf(...routes: [string, Handler][]) {
  server = await startRouteServer([putModel, ...routes]);
  return await server.hone().model({ name: "m" });
}

describe("train", () => {
  it("submits rollout ids, rewards, options and the cursor", async () => {
    const model = await modelOf(accepted, whole, still);
    const cursor = { epoch: 0, position: 2, seed: 0, step: 1, trained: 1, size: 4, shuffle: true };
    const options = { batch: { cursor }, learningRate: 1e-3, expectedStep: 0, clientToken: "t" };
    expect(await model.train([group(1)], options)).toMatchObject({ trained: true, step: 1 });
    expect(server.seen("POST /v1/models/m/operations")[0]?.body).toEqual({
      clientToken: "t",
      expectedStep: 0,
      op: {
        type: "train",
        groups: [{ id: "grp_1", rollouts: [{ rolloutId: "ro_1", reward: 1 }] }],
        config: { learningRate: 1e-3 },
        cursor,
        untrainedCursor: { ...cursor, trained: 0 },
      },
    });
  });

  it("sends the same token when it submits again", async () => {
    let attempts = 0;
    const model = await modelOf(
      [
        "POST /v1/models/m/operations",
        (_, response) => {
          attempts += 1;
          if (attempts === 1) response.destroy();
          else if (attempts === 2) sendError(response, 503, "worker_unavailable");
          else send(response, operation("queued"), 202);
        },
      ],
      whole,
      still,
    );
    await model.train([group(1)]);
    const tokens = server.seen("POST /v1/models/m/operations").map((r) => r.body.clientToken);
    expect(tokens).toHaveLength(3);
    expect(new Set(tokens).size).toBe(1);
  });

  it("goes on after a dropped stream: no event twice, none lost", async () => {
    let connections = 0;
    const model = await modelOf(
      accepted,
      still,
      stream(({ headers }, response) => {
        connections += 1;
        const after = Number(headers["last-event-id"] ?? 0);
        // Sends one event more than asked for again, and cuts the next one in half.
        const again = events.filter((event) => event.seq >= after);
        response.write(again.slice(0, 2).map(text).join(""));
        if (connections < 3) {
          response.write(text(events[3] as OperationEvent).slice(0, 30), () => response.destroy());
        } else response.end(again.slice(2).map(text).join(""));
      }),
    );
    const seen: number[] = [];
    await model.train([group(1)], { onEvent: (event) => seen.push(event.seq) });
    expect(seen).toEqual([1, 2, 3, 4]);
    expect(connections).toBeGreaterThan(1);
  });

  it("asks the operation where there is no stream", async () => {
    const model = await modelOf(
      accepted,
      ["GET /v1/operations/op_1", (_, response) => send(response, operation("succeeded"))],
      ["GET /v1/operations/op_1/events", (_, response) => sendError(response, 502, "x")],
    );
    const seen: string[] = [];
    const result = await model.train([group(1)], { onEvent: ({ type }) => seen.push(type) });
    expect(result.step).toBe(1);
    expect(seen).toEqual(["ended"]);
  });

  it("throws the operation's error with its code", async () => {
    const failed = operation("failed");
    failed.error = { message: "boom", type: "t", code: "disk_full", param: null };
    const model = await modelOf(
      accepted,
      stream((_, r) => r.end(text({ type: "ended", seq: 1, at: 1, operation: failed }))),
    );
    await expect(model.train([group(1)])).rejects.toMatchObject({
      code: "disk_full",
      message: "boom",
    });
  });

  it("ends the operation on the server when the signal aborts", async () => {
    const model = await modelOf(
      accepted,
      aborted,
      still,
      stream((_, r) => r.write(text(events[0] as OperationEvent))),
    );
    const controller = new AbortController();
    const training = model.train([group(1)], {
      signal: controller.signal,
      onEvent: () => controller.abort(),
    });
    await expect(training).rejects.toMatchObject({ code: "aborted" });
    // The program may end now: the server has heard of it.
    expect(server.seen("POST /v1/operations/op_1/abort")).toHaveLength(1);
  });

  it("ends it also when the signal aborts while the step is submitted", async () => {
    const controller = new AbortController();
    const model = await modelOf(
      [
        accepted[0],
        async (_, response) => {
          controller.abort();
          await sleep(50);
          send(response, operation("queued"), 202);
        },
      ],
      aborted,
    );
    const training = model.train([group(1)], { signal: controller.signal });
    await expect(training).rejects.toMatchObject({ code: "aborted" });
    expect(server.seen("POST /v1/operations/op_1/abort")).toHaveLength(1);
    await expect(model.train([group(1)], { signal: controller.signal })).rejects.toMatchObject({
      code: "aborted",
    });
    expect(server.seen("POST /v1/models/m/operations")).toHaveLength(1);
  });

  it("reads the events of an operation that ended while the stream was away", async () => {
    let connections = 0;
    const model = await modelOf(
      accepted,
      ["GET /v1/operations/op_1", (_, response) => send(response, operation("succeeded"))],
      stream((request, response) => {
        connections += 1;
        const after = Number(request.headers["last-event-id"] ?? 0);
        if (connections > 1) response.end(events.slice(after).map(text).join(""));
        else response.write(text(events[0] as OperationEvent), () => response.destroy());
      }),
    );
    const seen: number[] = [];
    await model.train([group(1)], { onEvent: ({ seq }) => seen.push(seq) });
    expect(seen).toEqual([1, 2, 3, 4]);
  });
});

describe("startTrain", () => {
  it("gives every reader every event, early or late", async () => {
    const model = await modelOf(accepted, whole, still);
    const handle = model.startTrain([group(1)]);
    const read = async () => {
      const seen = [];
      for await (const event of handle) seen.push(event.seq);
      return seen;
    };
    expect(await Promise.all([read(), read()])).toEqual([
      [1, 2, 3, 4],
      [1, 2, 3, 4],
    ]);
    expect((await handle.result).policy).toBe("m@1");
    expect(await read()).toEqual([1, 2, 3, 4]);
  });

  it("aborts", async () => {
    let end: (() => void) | undefined;
    const model = await modelOf(
      accepted,
      still,
      stream((_, r) => {
        const ended = { type: "ended", seq: 1, at: 1, operation: operation("aborted") } as const;
        end = () => r.end(text(ended));
      }),
      [
        aborted[0],
        (_, response) => {
          send(response, operation("running"));
          end?.();
        },
      ],
    );
    const handle = model.startTrain([group(1)]);
    await expect.poll(() => end).toBeDefined();
    await handle.abort();
    await expect(handle.result).rejects.toMatchObject({ code: "aborted" });
  });
});

describe("what is refused before anything is sent", () => {
  it("unknown options and wrong values, by name", async () => {
    const model = await modelOf(accepted, whole);
    const unknown = { learning_rate: 1 } as object;
    await expect(model.train([group(1)], unknown)).rejects.toMatchObject({
      code: "unsupported_parameter",
      param: "learning_rate",
    });
    await expect(model.train([group(1)], { learningRate: -1 })).rejects.toMatchObject({
      param: "learningRate",
    });
    expect(server.seen("POST")).toEqual([]);
  });

  it("NaN rewards and trajectories without a rollout", async () => {
    const model = await modelOf(accepted, whole);
    await expect(model.train([group(Number.NaN)])).rejects.toMatchObject({
      code: "invalid_reward",
      param: "groups[0].trajectories[0].reward",
    });
    await expect(model.train([group(1, null)])).rejects.toThrow(/gather\(\)/);
  });
});
