import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { describeEngine } from "../testing/engine-contract.ts";
import { createRendererClient } from "../renderer/http-renderer.ts";
import { supervise } from "../supervise/supervisor.ts";
import {
  startRendererChild,
  startVllm,
  startVllmChild,
  vllmOptions,
} from "../testing/running-engine.ts";
import { readVllmHealth } from "./vllm/health.ts";

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
