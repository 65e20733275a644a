import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, expect, it, vi } from "vitest";
import { silent } from "../testing/fixtures.ts";
import { sampleOne } from "../testing/sampling.ts";
import { requestsRunning } from "./engine-metrics.ts";
import { keepVllm, type KeptEngine } from "./kept-engine.ts";

const script = fileURLToPath(new URL("../testing/streaming-child.mjs", import.meta.url));
const kept: KeptEngine[] = [];
afterEach(async () => {
  await Promise.all(kept.splice(0).map((one) => one.stop()));
});

async function start(
  env: Record<string, string>,
  limitMs: number,
  idleMs?: number,
): Promise<KeptEngine> {
  const nothing = { admit: async () => undefined, fence: () => undefined, missing: async () => [] };
  const one = keepVllm({
    ...{ name: "engine", pool: () => nothing, log: silent, idleMs },
    child: {
      ...{ name: "vLLM", command: process.execPath, args: [script], env },
      ...{ unavailable: "engine_unavailable", deadlines: { decodingMs: limitMs } },
      ...{ pollMs: 20, backoffMs: 20 },
    },
  });
  kept.push(one);
  await one.start();
  return one;
}

it("a vLLM whose core has stopped is found by requests of which each gives up before the limit", async () => {
  const limitMs = 400;
  const one = await start({ HOLDS: "" }, limitMs);
  const ended = new AbortController();
  const asking = (async () => {
    while (!ended.signal.aborted) {
      const signal = AbortSignal.timeout(limitMs / 2);
      await sampleOne(one.engine, { prompt: [1], stream: true, signal }).catch(() => undefined);
      await delay(limitMs / 2);
    }
  })();
  await vi.waitFor(() => expect(one.status().restarts).toBeGreaterThan(0), {
    ...{ timeout: 30_000, interval: 20 },
  });
  ended.abort();
  await asking;
});

it("a vLLM whose core has stopped is found while nobody asks for anything", async () => {
  const one = await start({ HOLDS: "" }, 400, 100);
  await vi.waitFor(() => expect(one.status().restarts).toBeGreaterThan(0), {
    ...{ timeout: 30_000, interval: 20 },
  });
});

it("a vLLM that is not there keeps nobody from seeing the others' figures", async () => {
  const nothing = { admit: async () => undefined, fence: () => undefined, missing: async () => [] };
  const away = keepVllm({
    ...{ name: "engine-1", pool: () => nothing, log: silent },
    child: {
      name: "vLLM",
      command: process.execPath,
      args: [script],
      unavailable: "engine_unavailable",
    },
  });
  const there = {
    name: "engine-2",
    engine: { metrics: async () => "vllm:num_requests_running 3\n" },
  };
  const page = await requestsRunning([away, there]);
  expect(page).toContain('hone_engine_requests_running{engine="engine-2"} 3');
  expect(page).not.toContain("engine-1");
});

it("a vLLM that has answered is left alone, however long the reader takes over the first token", async () => {
  const limitMs = 2_000;
  const one = await start({}, limitMs);
  const ids: number[] = [];
  const signal = new AbortController().signal;
  const request = { model: "m@1", prompt: [1], n: 1, maxTokens: 2, temperature: 1, topP: 1 };
  const rest = { seed: null, stop: [], stopTokenIds: [], stream: true, signal };
  for await (const chunk of one.engine.generate({ ...request, ...rest })) {
    if (ids.length === 0) await delay(1.5 * limitMs);
    ids.push(...chunk.tokenIds);
  }
  expect(ids).toEqual([1, 1]);
  expect(one.status()).toMatchObject({ state: "ready", restarts: 0 });
});
