import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importLetter, makeLetters } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const letters = "abcdefghijklmnopqrst";

/** One long completion, and the swaps that it lived through: in all, and at most without a word of it. */
async function stream(server: TestServer, served: () => number) {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 0 });
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
  let from: number | null = null;
  let before = served();
  let silentSwaps = 0;
  for await (const chunk of chunks) {
    longestGapMs = Math.max(longestGapMs, performance.now() - last);
    last = performance.now();
    from ??= served();
    silentSwaps = Math.max(silentSwaps, served() - before);
    before = served();
    policy = chunk.model;
    text += chunk.choices[0]?.delta.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  return { text, policy, finish, longestGapMs, silentSwaps, swaps: served() - (from ?? served()) };
}

describe("fifty streams over twenty swaps", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
    await makeLetters(server, letters);
  });
  afterAll(() => server?.close());

  it("no response mixes two policies, none fails, none stalls", async () => {
    let served = 0;
    const swap = async (step: number): Promise<void> => {
      await importLetter(server, "letters", letters[step - 1] ?? "", step);
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

    const all = loops.flat();
    for (const { text, policy, finish, silentSwaps } of all) {
      const letter = letters[Number(policy.split("@")[1]) - 1];
      expect(text).toBe(letter?.repeat(300));
      expect(finish).toBe("length");
      // A swap does not hold the others up: they go on meanwhile.
      expect(silentSwaps).toBeLessThanOrEqual(6);
    }
    expect(loops).toHaveLength(50);
    // Most swaps came in the middle of most of the completions that there were.
    const lived = all.reduce((sum, { swaps }) => sum + swaps, 0);
    expect(lived).toBeGreaterThan((50 * (letters.length - 1)) / 4);
    const gap = Math.max(...all.map(({ longestGapMs }) => longestGapMs));
    console.log(
      `${all.length} completions lived through ${lived} swaps, at most ${Math.max(...all.map((c) => c.silentSwaps))} ` +
        `without a word; the longest silence was ${gap.toFixed(0)} ms`,
    );
  });
});
