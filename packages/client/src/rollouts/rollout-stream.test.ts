import type { ServerResponse } from "node:http";
import { afterEach, expect, it } from "vitest";
import {
  gatherOne as gather,
  rolloutRoutes,
  startRouteServer,
  type RouteServer,
} from "../testing/route-server.ts";
import type { RolloutModel } from "./rollout-model.ts";

let server: RouteServer;
afterEach(() => server.close());

it("a stream ends with its rollout, also by a fetch that has forgotten its signal", async () => {
  let hungUp = (): void => undefined;
  const closed = new Promise<void>((resolve) => (hungUp = resolve));
  const { routes } = rolloutRoutes({
    chat: (_, response) => {
      response.on("close", hungUp);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("data: {}\n\n");
    },
  });
  server = await startRouteServer(routes);
  // As Node's own does once the garbage collector has taken the request.
  const forgetful: typeof fetch = async (input, init) => {
    const asks = typeof init?.body === "string" && init.body.includes("messages");
    if (!asks) return await fetch(input, init);
    const { signal: _, ...others } = init ?? {};
    return await fetch(input, others);
  };
  const model = await server.hone({ fetch: forgetful }).model({ name: "m" });
  const texts: string[] = [];
  const rollout = async (m: RolloutModel) => {
    const response = await m.fetch(`${m.connection().baseURL}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        model: "m",
        messages: [{ role: "user", content: "go" }],
        stream: true,
      }),
    });
    const reader = response.body?.getReader();
    texts.push(new TextDecoder().decode((await reader?.read())?.value));
    await reader?.read();
    return 1;
  };
  const groups = await gather(model, rollout, [0], { timeoutMs: 3_000, maxExceptions: 1 });
  await closed;
  expect(texts).toEqual(["data: {}\n\n"]);
  expect(groups[0]?.exceptions).toMatchObject([{ type: "timeout" }]);
});

it("a stream of another model goes on after the rollout that began it: others may read it", async () => {
  let judge: ServerResponse | undefined;
  const { routes } = rolloutRoutes();
  server = await startRouteServer([
    [
      "POST /v1/chat/completions",
      (_, response) => {
        judge = response;
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write("data: 1\n\n");
      },
    ],
    ...routes,
  ]);
  const model = await server.hone().model({ name: "m" });
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  const next = async () => new TextDecoder().decode((await reader?.read())?.value);
  await gather(
    model,
    async (m: RolloutModel) => {
      const response = await m.fetch(`${server.url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "judge", messages: [], stream: true }),
      });
      reader = response.body?.getReader();
      expect(await next()).toBe("data: 1\n\n");
      return 1;
    },
    [0],
  );
  judge?.end("data: 2\n\n");
  expect(await next()).toBe("data: 2\n\n");
});
