import { once } from "node:events";
import { createServer, request, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { startProxy, type EngineProxy } from "./proxy.ts";

const key = "the-key";
/** More than the sockets in between hold. */
const large = Buffer.alloc(32 * 1024 * 1024, "a");
let answersAll: boolean;
let engine: Server;
let proxy: EngineProxy;
beforeEach(async () => {
  engine = createServer((asked, response) => {
    asked.resume();
    response.writeHead(200).write("a");
    if (answersAll) response.end(large);
  }).listen(0, "127.0.0.1");
  await once(engine, "listening");
  const baseURL = `http://127.0.0.1:${(engine.address() as AddressInfo).port}`;
  proxy = await startProxy({
    ...{ host: "127.0.0.1", port: 0, key, log: silent },
    ...{ engine: () => ({ baseURL, key: null }), rootOf: (path: string) => path },
    metrics: async () => "",
  });
});
afterEach(async () => {
  await proxy.close();
  engine.closeAllConnections();
  engine.close();
});

/** Reads nothing of the answer until it is told to. */
async function ask(): Promise<IncomingMessage> {
  const headers = { authorization: `Bearer ${key}` };
  const options = { ...{ port: proxy.port, host: "127.0.0.1", headers }, agent: false };
  const asked = request({ ...options, method: "POST", path: "/v1/completions" }).end("{}");
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  return response.pause();
}

it("counts requests that wait for the engine, and not those whose answers nobody reads", async () => {
  answersAll = false;
  const held = await ask();
  expect([proxy.inFlight, proxy.awaited]).toEqual([1, 1]);
  answersAll = true;
  const unread = await ask();
  await expect.poll(() => proxy.awaited).toBe(1);
  expect(proxy.inFlight).toBe(2);
  let bytes = 0;
  for await (const part of unread as AsyncIterable<Buffer>) bytes += part.length;
  expect(bytes).toBe(1 + large.length);
  await expect.poll(() => proxy.inFlight).toBe(1);
  held.destroy();
  await expect.poll(() => [proxy.inFlight, proxy.awaited]).toEqual([0, 0]);
});
