import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { vllmHealthBeside } from "./health.ts";

it("works while it has requests of ours, also where its core has stopped before it took them", async () => {
  const page = "vllm:num_requests_running 0.0\nvllm:iteration_tokens_total_count 7.0\n";
  const server = createServer((_, response) => response.end(page)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const child = { baseURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  let awaited = 0;
  const health = vllmHealthBeside(() => awaited);
  expect(await health(child)).toEqual({ phase: "idle", progress: 7 });
  awaited = 1;
  // Its supervisor ends it where this stays so.
  expect(await health(child)).toEqual({ phase: "decoding", progress: 7 });
  server.close();
  server.closeAllConnections();
});
