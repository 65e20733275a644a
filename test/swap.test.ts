import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importLetter, makeLetters } from "./support/letters.ts";
import { startTestServer, type TestServer } from "./support/server.ts";

const letters = "abcdefghijklmnopqrst";

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
