import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { ModelInfo, OperationInfo, RolloutInfo, Trajectory } from "@hone/core";
import { gather } from "../rollouts/gather.ts";
import { Hone } from "../hone.ts";

/** One rollout of each scenario, unless the test says otherwise. */
export const gatherOne: typeof gather = (model, rollout, scenarios, options) =>
  gather(model, rollout, scenarios, { groupSize: 1, ...options });

interface Received {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  body: any;
}
export type Handler = (request: Received, response: ServerResponse) => unknown;

/**
 * A server on a real socket that has just the routes of a test: connections drop, answers come late
 * and statuses follow one another as the test says. The first route whose pattern fits answers.
 */
export async function startRouteServer(routes: [string, Handler][]) {
  const received: Received[] = [];
  const server = createServer((incoming, response) => {
    const parts: Buffer[] = [];
    incoming.on("data", (part: Buffer) => parts.push(part));
    incoming.on("end", () => {
      const text = Buffer.concat(parts).toString();
      const request: Received = {
        method: incoming.method ?? "",
        path: incoming.url ?? "",
        headers: incoming.headers,
        body: text ? JSON.parse(text) : undefined,
      };
      received.push(request);
      const name = `${request.method} ${request.path}`;
      const route = routes.find(([pattern]) => new RegExp(`^(${pattern})$`).test(name));
      if (route) route[1](request, response);
      else sendError(response, 404, "not_found", `no route for ${name}`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url,
    received,
    /** Goes away as one that is killed, until `isOver`, and comes back on the same port. */
    async away(isOver: () => boolean) {
      await close();
      // Where it never is, the test fails by what it expects.
      for (let waited = 0; waited < 10_000 && !isOver(); waited += 10) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    },
    /** Requests whose "METHOD path" begins with this. */
    seen: (start: string) => received.filter((r) => `${r.method} ${r.path}`.startsWith(start)),
    hone: (options: Partial<ConstructorParameters<typeof Hone>[0]> = {}) =>
      new Hone({ baseURL: url, apiKey: "the-key", ...options }),
    close,
  };
}
export type RouteServer = Awaited<ReturnType<typeof startRouteServer>>;

/** Without timers, which a test may have stopped. What does not come ends at the test's own limit. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

export function send(response: ServerResponse, body: unknown, status = 200, headers = {}): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

export function sendError(
  response: ServerResponse,
  status: number,
  code: string,
  message = "no",
  headers = {},
): void {
  send(response, { error: { message, type: "t", code, param: null } }, status, headers);
}

export function modelInfo(cursor: unknown = null): ModelInfo {
  return {
    name: "m",
    object: "hone.model",
    base: "tiny",
    lora: { r: 16, alpha: 32 },
    chat_template_kwargs: null,
    learnt: 0,
    served: 0,
    cursor,
    operations: [],
    maxModelLen: 512,
    createdAt: 1,
  };
}

export function operation(status: OperationInfo["status"], trained = true): OperationInfo {
  const result = {
    type: "train" as const,
    trained,
    step: 1,
    policy: "m@1",
    reasons: {},
    groups: [],
    metrics: { reward: 0.5 },
    checkpoint: "steps/1",
    warnings: [],
  };
  return {
    id: "op_1",
    object: "operation",
    model: "m",
    type: "train",
    clientToken: "t",
    status,
    fromStep: 0,
    result: status === "succeeded" ? result : null,
    error: null,
    createdAt: 1,
  };
}

export const putModel: [string, Handler] = [
  "(PUT /v1/models/m|GET /v1/models/m/state)",
  (_, response) => send(response, modelInfo()),
];

/** Rollouts as the server keeps them, and a chat completion that repeats the last message. */
export function rolloutRoutes(options: { leaseMs?: number; chat?: Handler } = {}) {
  const rollouts = new Map<string, RolloutInfo & { scenario?: unknown; calls: any[] }>();
  const find = (path: string) => rollouts.get(path.split("/")[3] as string) as never as any;
  const begin = (body: any, host: string | undefined) => {
    const now = Date.now();
    const info = {
      id: body.id,
      object: "rollout" as const,
      model: body.model,
      mode: body.mode,
      status: "open" as const,
      group: body.group ?? null,
      policy: null,
      baseURL: `http://${host}/v1/rollouts/${body.id}/v1`,
      reward: null,
      completions: 0,
      leaseExpiresAt: now + (options.leaseMs ?? 600_000),
      createdAt: now,
      scenario: body.scenario,
      calls: [],
    };
    rollouts.set(info.id, info);
    return info;
  };
  const routes: [string, Handler][] = [
    putModel,
    [
      "POST /v1/batch/rollouts",
      ({ body, headers }, response) =>
        sendItems(
          response,
          body.rollouts.map((one: any) => ({ rollout: begin(one, headers.host) })),
        ),
    ],
    [
      "PATCH /v1/batch/rollouts",
      ({ body }, response) =>
        sendItems(
          response,
          body.rollouts.map(({ id, ...change }: any) => {
            const rollout = Object.assign(rollouts.get(id) as never as any, change);
            return { rollout, trajectory: trajectoryOf(rollout) };
          }),
        ),
    ],
    [
      "POST /v1/rollouts",
      ({ body, headers }, response) => send(response, begin(body, headers.host), 201),
    ],
    [
      "POST /v1/rollouts/[^/]+/v1/chat/completions",
      (request, response) => {
        const rollout = find(request.path);
        rollout.calls.push(request.body);
        if (options.chat) return options.chat(request, response);
        rollout.completions += 1;
        return chat(request, response);
      },
    ],
    ["POST /v1/chat/completions", chat],
    [
      "PATCH /v1/rollouts/[^/]+",
      ({ path, body }, response) => {
        const rollout = find(path);
        Object.assign(rollout, body);
        send(response, rollout);
      },
    ],
    ["GET /v1/rollouts/[^/]+", ({ path }, response) => send(response, find(path))],
    [
      "GET /v1/rollouts/[^/]+/trajectory",
      ({ path }, response) => send(response, trajectoryOf(find(path))),
    ],
  ];
  return { rollouts, routes };
}

/** The answer of a batch; what an item leaves out is null. */
export function sendItems(response: ServerResponse, items: object[]): void {
  const none = { rollout: null, trajectory: null, error: null };
  send(response, { object: "list", data: items.map((item) => ({ ...none, ...item })) });
}

function trajectoryOf(rollout: any): Trajectory {
  const { id, model, reward, metrics, metadata, logs, completions } = rollout;
  return {
    rolloutId: id,
    model,
    policy: `${model}@0`,
    messages: [],
    tools: null,
    histories: [],
    reward,
    metrics,
    metadata,
    logs,
    usage: {
      ...{ completions, promptTokens: 0, completionTokens: 0 },
      ...(rollout.constrained ? { constrained: rollout.constrained } : {}),
      ...(rollout.constrainedBy ? { constrainedBy: rollout.constrainedBy } : {}),
    },
    startedAt: 1,
    durationMs: 1,
  };
}

function chat({ body }: Received, response: ServerResponse): void {
  send(response, {
    id: "chatcmpl_1",
    object: "chat.completion",
    created: 1,
    model: "m@0",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: body.messages.at(-1).content, refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
  });
}
