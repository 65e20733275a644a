import { request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeTalker } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { workerMetrics, type WorkerMetrics } from "../support/worker-metrics.ts";

const times = 20;
/** What one request would make, if nobody ended it: the talker does not stop by itself. */
const [choices, tokens] = [4, 900];

describe.skipIf(process.platform !== "linux")("clients that leave", () => {
  let server: TestServer;
  let metrics: () => Promise<WorkerMetrics>;
  beforeAll(async () => {
    server = await startTestServer(undefined, { leaseMs: 1_000 });
    await makeTalker(server, "leaves");
    const health = (await (await server.fetch("/health")).json()) as {
      components: { worker: { pid: number } };
    };
    metrics = workerMetrics(health.components.worker.pid);
  });
  afterAll(() => server?.close());

  async function createRollout(): Promise<string> {
    const body = JSON.stringify({ model: "leaves" });
    const response = await server.fetch("/v1/rollouts", { method: "POST", body });
    return ((await response.json()) as { id: string }).id;
  }

  /** Begins a long completion, leaves in the middle of it, and says how many tokens it came to and in what time. */
  async function leave(rollout: string, stream: boolean): Promise<{ made: number; ms: number }> {
    const before = (await metrics()).generated;
    const call = request(`${server.url}/v1/rollouts/${rollout}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    });
    call.on("error", () => undefined);
    const headed = new Promise<void>((resolve) => {
      call.on("response", (response) => {
        response.on("error", () => undefined);
        response.once("data", () => resolve());
      });
    });
    call.end(
      JSON.stringify({
        model: "leaves",
        messages: [{ role: "user", content: "Count." }],
        n: choices,
        max_tokens: tokens,
        temperature: 0,
        stream,
      }),
    );
    // What has begun to be made has no headers yet, unless it streams.
    await until(async () => (await metrics()).generated > before);
    if (stream) await headed;
    const left = performance.now();
    call.destroy();
    await until(async () => {
      const { running, waiting } = await metrics();
      return running === 0 && waiting === 0;
    });
    return { made: (await metrics()).generated - before, ms: performance.now() - left };
  }

  async function until(reached: () => Promise<boolean>): Promise<void> {
    while (!(await reached())) await delay(1);
  }

  it.each([
    ["before headers", false],
    ["mid-stream", true],
  ])("%s: generation stops, and nothing is left", async (what, stream) => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    const rollout = await createRollout();
    // What is made once (pools, tables) is made by the first.
    await leave(rollout, stream);
    const before = sockets();
    const left: { made: number; ms: number }[] = [];
    for (let i = 0; i < times; i++) left.push(await leave(rollout, stream));
    const took = left.map(({ ms }) => ms).sort((a, b) => a - b);
    console.log(
      `${what}: generation stopped after ${took[times / 2]?.toFixed(0)} ms (median), ${took.at(-1)?.toFixed(0)} ms (most)`,
    );
    // Where this process was late, one may have come to its end before it was left; not all of them.
    const made = left.reduce((sum, each) => sum + each.made, 0);
    expect(made).toBeLessThan((times * choices * tokens) / 2);

    const { generated } = await metrics();
    await delay(300);
    expect((await metrics()).generated).toBe(generated);
    // A lease is over only when no call counts any more.
    const status = async (): Promise<string> => {
      const info = (await (await server.fetch(`/v1/rollouts/${rollout}`)).json()) as {
        status: string;
      };
      return info.status;
    };
    await expect.poll(status, { timeout: 120_000, interval: 250 }).toBe("expired");
    await expect.poll(sockets, { timeout: 120_000 }).toBeLessThanOrEqual(before);
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });
});

/** Of this process, in which the server runs. */
function sockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
}
