import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { describeEngine } from "../testing/engine-contract.ts";
import { createRendererClient } from "../renderer/http-renderer.ts";
import { supervise, type Supervised } from "../supervise/supervisor.ts";
import type { Trainer } from "../ports/trainer.ts";
import { sampleOne } from "../testing/sampling.ts";
import {
  probesOf,
  spoken,
  startRendererChild,
  startVllm,
  startVllmChild,
  trainedAdapters,
  vllmOptions,
} from "../testing/running-engine.ts";
import { createHttpEngine } from "./http-engine.ts";
import { createEnginePool, type EnginePool } from "./pool.ts";
import { readVllmHealth } from "./vllm/health.ts";
import { createEngineSleep } from "./vllm/sleep.ts";

// Only when asked for: `pnpm test:engine --engine vllm`. It takes minutes and 3.4 GB of packages.
const wanted = (process.env["HONE_TEST_ENGINES"] ?? "embedded").split(",");

describe.skipIf(!wanted.includes("vllm"))("vLLM", () => {
  describeEngine("vllm", startVllm);

  it("makes the ids of a text that the renderer makes", async () => {
    const [vllm, child] = await Promise.all([startVllmChild(), startRendererChild()]);
    const renderer = createRendererClient({ baseURL: () => child.baseURL, key: () => child.key });
    try {
      for (const prompt of ["Say a word.", "<|user|>hi<|assistant|>", " é 日本 🙂\n\n\ta ", "a"]) {
        const response = await fetch(`${vllm.baseURL}/v1/completions`, {
          method: "POST",
          headers: { authorization: `Bearer ${vllm.key}`, "content-type": "application/json" },
          body: JSON.stringify({ model: "base", prompt, max_tokens: 1, return_token_ids: true }),
        });
        const { choices } = (await response.json()) as {
          choices: { prompt_token_ids: number[] }[];
        };
        expect(choices[0]?.prompt_token_ids).toEqual(await renderer.encode(prompt));
      }
    } finally {
      await renderer.close();
      await Promise.all([vllm.stop(), child.stop()]);
    }
  });

  it("sleeps through a step and serves its policies again; of its development routes no others are open", async () => {
    const adapters = await trainedAdapters();
    const path = join(adapters, `say-${spoken.a}`);
    const probe = (await probesOf([path]))[path];
    const log = pino({ level: "silent" });
    const http = createHttpEngine({
      ...{ kind: "vllm", baseURL: () => vllm.rawBaseURL(), key: () => vllm.key() },
    });
    const pool: EnginePool = createEnginePool({
      replicas: [
        {
          ...{ name: "vllm", onFenced: () => vllm.doubt() },
          ...{ engine: http, requireUp: () => vllm.baseURL() },
        },
      ],
      restore: () => Promise.resolve(),
      base: () => ({ name: "base", dtype: "float32" }),
      log,
    });
    const sleep = createEngineSleep({
      ...{ name: "vllm", pool: () => pool, freeBytes: async () => null, log },
      engine: () => ({ baseURL: vllm.baseURL(), key: vllm.key() }),
      doubt: () => vllm.doubt(),
    });
    const vllm: Supervised = supervise({
      ...vllmOptions({}, { sleeps: true }),
      ...{ log, health: readVllmHealth, pollMs: 50 },
      onReady: () => sleep.admit(vllm.rawBaseURL(), vllm.key(), () => pool.admit("vllm")),
      onLost: () => pool.fence("vllm"),
    });
    const engines = sleep.guard(pool);
    try {
      await vllm.start();
      await engines.load({ policy: "m@1", path, sha256: "0".repeat(64), bytes: 1, rank: 8, probe });
      const post = async (route: string, key: string) => {
        const headers = { authorization: `Bearer ${key}` };
        return (await fetch(vllm.baseURL() + route, { method: "POST", headers })).status;
      };
      expect(await post("/collective_rpc", vllm.key())).toBe(404);
      expect(await post("/reset_prefix_cache", vllm.key())).toBe(404);
      expect(await post("/sleep", "wrong")).toBe(401);
      let end: () => void = () => undefined;
      const training = new Promise<void>((resolve) => (end = resolve));
      const trains = sleep
        .beside({
          train: () => training.then(() => ({ metrics: {}, files: [] })),
        } as Partial<Trainer> as Trainer)
        .train({
          ...{ operationId: "o", stepData: new Uint8Array(), onAccepted: () => undefined },
          ...{ onEvent: () => undefined, signal: new AbortController().signal },
        });
      await expect.poll(() => sleep.status().state, { timeout: 60_000 }).toBe("asleep");
      const answer = sampleOne(engines, { model: "m@1", prompt: [1], maxTokens: 3 });
      await delay(500);
      expect(sleep.status()).toMatchObject({ state: "asleep", waiting: 1 });
      end();
      await trains;
      expect((await answer).ids).toEqual(Array(3).fill(spoken.a));
      expect(vllm.status().restarts).toBe(0);
    } finally {
      await vllm.stop();
      await http.close();
    }
  });

  it("is kept alive by the supervisor, which tells what it is at", async () => {
    const told: string[] = [];
    const log = pino({ level: "info" }, { write: (line) => void told.push(line) });
    const supervised = supervise({ ...vllmOptions(), log, health: readVllmHealth, pollMs: 50 });
    try {
      await supervised.start();
      expect(told.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual([
        "the vLLM is loading",
        "the vLLM is compiling",
      ]);
      const body = { model: "base", prompt: [1, 2, 3], max_tokens: 400, ignore_eos: true };
      const answering = fetch(`${supervised.baseURL()}/v1/completions`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${supervised.key()}`,
          "content-type": "application/json",
        },
        body: JSON.stringify(body),
      });
      await expect
        .poll(() => supervised.status(), { interval: 5, timeout: 60_000 })
        .toMatchObject({ state: "ready", phase: "decoding" });
      expect((await answering).status).toBe(200);
      await supervised.kill();
      await expect
        .poll(() => supervised.status(), { timeout: 300_000 })
        .toMatchObject({ state: "restarting", phase: "loading", restarts: 1 });
    } finally {
      await supervised.stop();
    }
  });

  it.each(["stop", "kill"] as const)(
    "leaves no file in the system's temporary folder after a %s",
    async (how) => {
      const temporary = mkdtempSync(join(tmpdir(), "hone-tmp-"));
      const files = (): string[] =>
        readdirSync(temporary, { recursive: true, encoding: "utf8" }).filter(
          (name) => !name.startsWith("tsx-"),
        );
      const child = await startVllmChild({ TMPDIR: temporary });
      try {
        expect(files().some((name) => /vllm_dist_/.test(name))).toBe(true);
      } finally {
        await child[how]();
      }
      await expect.poll(files, { timeout: 10_000 }).toEqual([]);
      rmSync(temporary, { recursive: true });
    },
  );
});
