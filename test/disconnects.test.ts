import { request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeTalker } from "./support/letters.ts";
import { startTestServer, type TestServer } from "./support/server.ts";
import { workerMetrics, type WorkerMetrics } from "./support/worker-metrics.ts";

const times = 20;
/** What a busy machine may take; the median of a quiet one is printed. */
const boundMs = 2_000;

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

  /** Begins a long completion, leaves in the middle of it, and says how long the engine went on. */
  async function leave(rollout: string, stream: boolean): Promise<number> {
    const call = request(`${server.url}/v1/rollouts/${rollout}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    });
    call.on("error", () => undefined);
    let answered = false;
    const headed = new Promise<void>((resolve) => {
      call.on("response", (response) => {
        answered = true;
        response.on("error", () => undefined);
        response.once("data", () => resolve());
      });
    });
    call.end(
      JSON.stringify({
        model: "leaves",
        messages: [{ role: "user", content: "Count." }],
        n: 4,
        max_tokens: 900,
        stream,
      }),
    );
    await until(async () => (await metrics()).running > 0);
    if (stream) await headed;
    else expect(answered).toBe(false);
    const left = performance.now();
    call.destroy();
    await until(async () => {
      const { running, waiting } = await metrics();
      return running === 0 && waiting === 0;
    });
    return performance.now() - left;
  }

  async function until(reached: () => Promise<boolean>): Promise<void> {
    const limit = performance.now() + 20_000;
    while (!(await reached())) {
      if (performance.now() > limit) throw new Error("it did not come to that");
    }
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
    const took: number[] = [];
    for (let i = 0; i < times; i++) took.push(await leave(rollout, stream));
    took.sort((a, b) => a - b);
    const [median = NaN, most = NaN] = [took[times / 2], took.at(-1)];
    console.log(
      `${what}: generation stopped after ${median.toFixed(0)} ms (median), ${most.toFixed(0)} ms (most)`,
    );
    expect(median).toBeLessThan(boundMs);

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
    await expect.poll(status, { timeout: 15_000, interval: 250 }).toBe("expired");
    await expect.poll(sockets, { timeout: 10_000 }).toBeLessThanOrEqual(before);
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });
});

/** Of this process, in which the server runs. */
function sockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
}
