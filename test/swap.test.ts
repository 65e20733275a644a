import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { findEnvironment } from "@hone/server";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { base, startTestServer, type TestServer } from "./support/server.ts";

const letters = "abcdefghijklmnopqrst";

/** Writes one adapter a letter under the data directory, where the server may import from. */
async function makeAdapters(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
  await promisify(execFile)(
    await findEnvironment(),
    [at("support/say_token.py"), base, folder, letters],
    {
      env: { ...process.env, PYTHONPATH: at("../packages/server/worker"), HF_HUB_OFFLINE: "1" },
    },
  );
}

/** One long completion, and how many swaps it lived through. */
async function stream(server: TestServer, served: () => number) {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 0 });
  const from = served();
  // From before the request: a stall may come before the headers, too.
  let last = performance.now();
  let longestGapMs = 0;
  const chunks = await client.chat.completions.create({
    model: "letters",
    messages: [{ role: "user", content: "Say a word." }],
    max_tokens: 300,
    temperature: 0,
    stream: true,
  });
  let text = "";
  let policy = "";
  let finish: string | null = null;
  for await (const chunk of chunks) {
    longestGapMs = Math.max(longestGapMs, performance.now() - last);
    last = performance.now();
    policy = chunk.model;
    text += chunk.choices[0]?.delta.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  return { text, policy, finish, longestGapMs, swaps: served() - from };
}

describe("fifty streams over twenty swaps", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
    await makeAdapters(join(server.dataDir, "imports"));
  }, 240_000);
  afterAll(() => server?.close());

  it("no response mixes two policies, none fails, none stalls", { timeout: 240_000 }, async () => {
    const model = await server.hone.model({ name: "letters" });
    let served = 0;
    const swap = async (step: number): Promise<void> => {
      const response = await server.fetch("/v1/models/letters/operations", {
        method: "POST",
        body: JSON.stringify({
          clientToken: `swap-${step}`,
          op: { type: "import", path: join(server.dataDir, "imports", letters[step - 1] ?? "") },
        }),
      });
      expect(response.status, await response.clone().text()).toBeLessThan(300);
      await expect
        .poll(async () => (await model.info()).served, { interval: 20, timeout: 30_000 })
        .toBe(step);
      served = step;
    };
    await swap(1); // policy 0 is the base, which says no letter

    // Each of the fifty streams one completion after the other for as long as there are swaps.
    const loop = async (): Promise<Awaited<ReturnType<typeof stream>>[]> => {
      const completions = [];
      do completions.push(await stream(server, () => served));
      while (served < letters.length);
      return completions;
    };
    const streams = Promise.all(Array.from({ length: 50 }, loop));
    for (let step = 2; step <= letters.length; step++) await swap(step);
    const loops = await streams;

    for (const { text, policy, finish, longestGapMs } of loops.flat()) {
      const letter = letters[Number(policy.split("@")[1]) - 1];
      expect(text).toBe(letter?.repeat(300));
      expect(finish).toBe("length");
      expect(longestGapMs).toBeLessThan(10_000);
    }
    // The first of each: the last may begin when the swaps are over.
    const over = loops.map(([first]) => first?.swaps ?? 0);
    expect(over).toHaveLength(50);
    expect(
      Math.min(...over),
      `swaps that the first completion of each lived through: ${over.join(", ")}`,
    ).toBeGreaterThanOrEqual(3);
  });
});
