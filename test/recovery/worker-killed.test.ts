import { gather } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { makeTalker } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { workerMetrics } from "../support/worker-metrics.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  await makeTalker(server, "kill");
});
afterAll(() => server?.close());

interface Health {
  status: string;
  components: Record<string, { pid: number | null; phase: string | null }>;
}

async function health(): Promise<Health> {
  return (await (await server.fetch("/health")).json()) as Health;
}

/** Kills a child and says which it was: its successor has another pid. */
async function kill(name: "worker" | "renderer"): Promise<number> {
  const pid = (await health()).components[name]?.pid ?? 0;
  // 0 would be this process's own group: another rollout has killed it, and there is none yet.
  if (pid > 0) end(pid);
  return pid;
}

function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Asks the worker that there is now how many tokens it has made. */
async function tokensMade(): Promise<() => Promise<number>> {
  const metrics = workerMetrics((await health()).components["worker"]?.pid ?? 0);
  return async () => (await metrics()).generated;
}

async function back(): Promise<void> {
  await expect
    .poll(async () => (await health()).status, { timeout: 240_000, interval: 100 })
    .toBe("ok");
}

const ask = (client: OpenAI, model: string) => ({
  whole: (tokens: number) =>
    client.chat.completions.create({
      model,
      messages: [{ role: "user", content: "Count." }],
      n: 4,
      max_tokens: tokens,
    }),
});

it.each(["worker", "renderer"] as const)(
  "a rollout whose SDK retries outlives the %s",
  async (victim) => {
    const model = await server.hone.model({ name: "kill" });
    const statuses: number[] = [];
    let isMet = false;
    const [group] = await gather(
      model,
      async (rolloutModel) => {
        const connection = rolloutModel.connection();
        const client = new OpenAI({
          ...connection,
          maxRetries: 8,
          fetch: async (url, init) => {
            const response = await connection.fetch(url, init);
            statuses.push(response.status);
            if (response.status !== 200) {
              expect(response.headers.get("x-should-retry")).toBe("true");
              expect(Number(response.headers.get("retry-after-ms"))).toBeGreaterThanOrEqual(1_000);
            }
            return response;
          },
        });
        // The renderer works before and after the sampling: a call meets its absence at its beginning.
        if (victim === "renderer") await kill(victim);
        // One rollout of the group kills the worker: another would ask for the tokens of one that is gone.
        const kills = victim === "worker" && !isMet;
        isMet = true;
        const generated = kills ? await tokensMade() : null;
        const before = await generated?.();
        const first = ask(client, connection.model).whole(900);
        if (generated) {
          await expect.poll(generated, { interval: 10 }).toBeGreaterThan(before!);
          await kill(victim);
        }
        await first;
        await ask(client, connection.model).whole(8);
        return { reward: 1 };
      },
      [{}],
    );
    expect(group?.exceptions).toEqual([]);
    expect(statuses.at(-1)).toBe(200);
    expect(statuses).toContain(503);
    expect(new Set(statuses)).toEqual(new Set([200, 503]));
    await back();
  },
);

it("a stream that has begun ends with an error, never as if it were whole", async () => {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 0 });
  const { pid } = (await health()).components["worker"]!;
  // More at once take longer: the worker is not done when the first token of the first kills it.
  const ends = await Promise.all(
    Array.from({ length: 16 }, async () => {
      const finished: string[] = [];
      try {
        const stream = await client.chat.completions.create({
          model: "kill",
          messages: [{ role: "user", content: "Count." }],
          n: 4,
          max_tokens: 900,
          temperature: 0,
          stream: true,
        });
        for await (const { choices } of stream) {
          for (const { finish_reason: reason } of choices) if (reason) finished.push(reason);
          end(pid!);
        }
        return { finished, message: null };
      } catch (error) {
        return { finished, message: String(error) };
      }
    }),
  );
  const broken = /The engine ended before the completion was complete/;
  expect(ends.some(({ message }) => message !== null && broken.test(message))).toBe(true);
  for (const { finished, message } of ends) {
    // One that is whole had all of it before.
    if (message === null) expect(finished).toEqual(Array(4).fill("length"));
  }
  await back();
});
