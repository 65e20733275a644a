import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runHere } from "../testing/run-cli.ts";
import { workerPython } from "../testing/running-engine.ts";
import { startServer, type RunningServer } from "../server.ts";

const base = fileURLToPath(new URL("../../../../models/hone-2048-1m", import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), "hone-idle-"));
afterAll(() => rmSync(dataDir, { recursive: true, force: true, maxRetries: 5 }));

// In order: the last test deletes what the first one trained.
describe.skipIf(!workerPython())("a real engine", { shuffle: false }, () => {
  let server: RunningServer;
  beforeAll(async () => {
    // Room for a few adapters.
    server = await startServer({ base, dataDir, adapterMemory: 3 * 1024 * 1024 });
  });
  afterAll(() => server.close());

  async function call(method: string, path: string, body?: unknown) {
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    // oxlint-disable-next-line typescript/no-explicit-any
    return { status: response.status, json: (await response.json()) as any };
  }

  async function sampled(model: string): Promise<{ token: string; logprob: number }[]> {
    const messages = [{ role: "user", content: "up or down?" }];
    const body = { model, messages, max_tokens: 12, seed: 7, logprobs: true };
    const { status, json } = await call("POST", "/v1/chat/completions", body);
    expect([status, json.error ?? null]).toEqual([200, null]);
    expect(json.model.split("@")[0]).toBe(model.split("@")[0]);
    return json.choices[0].logprobs.content.map(
      ({ token, logprob }: { token: string; logprob: number }) => ({ token, logprob }),
    );
  }

  const usage = async (): Promise<{ bytes: number; maxBytes: number }> =>
    (await call("GET", "/v1/states")).json.adapters;
  const live = async (model: string): Promise<number> =>
    (await call("GET", `/v1/models/${model}/state`)).json.live.policies;

  test("a trained policy that was unloaded comes back with the same weights, bit for bit", async () => {
    await call("PUT", "/v1/models/m", {});
    const rollouts = [];
    for (const reward of [0, 1]) {
      const { json } = await call("POST", "/v1/rollouts", { model: "m" });
      const messages = [{ role: "user", content: "up or down?" }];
      const path = `/v1/rollouts/${json.id}/v1/chat/completions`;
      await call("POST", path, { model: "m", messages, max_tokens: 8 });
      await call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished", reward });
      rollouts.push({ rolloutId: json.id, reward });
    }
    const op = { type: "train", groups: [{ id: "g", rollouts }], config: { learningRate: 0.01 } };
    const { json } = await call("POST", "/v1/models/m/operations", { clientToken: "t", op });
    await expect
      .poll(async () => (await call("GET", `/v1/operations/${json.id}`)).json.status, {
        interval: 50,
        timeout: 60_000,
      })
      .toBe("succeeded");
    const before = { trained: await sampled("m"), untrained: await sampled("m@0") };
    expect(before.trained).not.toEqual(before.untrained);

    const others = Array.from({ length: 8 }, (_, at) => `other-${at}`);
    for (const name of others) await call("PUT", `/v1/models/${name}`, {});
    expect(await live("m")).toBe(0);
    const { bytes, maxBytes } = await usage();
    expect(bytes).toBeLessThanOrEqual(maxBytes);
    const text = (await runHere(["models", "--data-dir", dataDir])).out;
    expect(text).toMatch(/^MODEL .*IN ENGINE/);
    expect(text).toMatch(/\nm +hone-2048-1m .* – /);
    expect(text).toContain("past 3.0 MiB those not in use are unloaded");

    // All at once: each is answered by its own weights.
    const again = await Promise.all(["m", "m@0", ...others].map(sampled));
    const expected = [before.trained, ...again.slice(1).map(() => before.untrained)];
    for (const [at, tokens] of again.entries()) {
      // Sums of a batch are rounded in another order.
      for (const [i, { token, logprob }] of tokens.entries()) {
        expect(token).toBe(expected[at]?.[i]?.token);
        expect(logprob).toBeCloseTo(expected[at]?.[i]?.logprob ?? Number.NaN, 4);
      }
    }
    for (const name of others) await sampled(name);
    expect(await live("m")).toBe(0);
    expect(await sampled("m")).toEqual(before.trained);
  });

  test("a deleted model is gone from it, and from the command line", async () => {
    const { json } = await call("POST", "/v1/rollouts", { model: "m" });
    const rm = ["models", "rm", "m", "--data-dir", dataDir];
    const refused = await runHere(rm);
    expect([refused.code, refused.error]).toEqual([1, expect.stringContaining("--force")]);
    const done = await runHere([...rm, "--force", "--json"]);
    expect(JSON.parse(done.out)).toEqual({ id: "m", object: "model", deleted: true });
    expect((await call("GET", `/v1/models/m/state`)).status).toBe(404);
    const messages = [{ role: "user", content: "up or down?" }];
    const asked = await call("POST", "/v1/chat/completions", { model: "m", messages });
    expect([asked.status, asked.json.error.code]).toEqual([404, "model_not_found"]);
    const late = await call("POST", `/v1/rollouts/${json.id}/v1/chat/completions`, {
      model: "m",
      messages,
    });
    expect([404, 409]).toContain(late.status);
    const names = (await call("GET", "/v1/models")).json.data.map(({ id }: { id: string }) => id);
    expect(names.filter((id: string) => id.startsWith("m"))).toEqual([]);
  });
});
