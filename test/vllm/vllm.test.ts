import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gather, type RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Finding } from "../../packages/server/src/cli/doctor/checks.ts";
import { probeEngine } from "../../packages/server/src/engines/probe.ts";
import { createCheckpoints } from "../../packages/server/src/policies/checkpoints.ts";
import { runHere } from "../../packages/server/src/testing/run-cli.ts";
import { startVllm, type RunningEngine } from "../../packages/server/src/testing/running-engine.ts";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { expectTrainedWereSampled, recordWire, type Wire } from "../support/wire.ts";

// Only when asked for: `pnpm test:engine --engine vllm`. It takes minutes and 3.4 GB of packages.
const wanted = (process.env["HONE_TEST_ENGINES"] ?? "embedded").split(",");

/** Two short answers, so that the second prompt holds sampled ids. Long words pay: rewards always differ. */
async function twoWords(model: RolloutModel): Promise<{ reward: number }> {
  const connection = model.connection();
  const client = new OpenAI(connection);
  const messages: OpenAI.ChatCompletionMessageParam[] = [];
  let length = 0;
  for (const content of ["Say a word.", "Another one."]) {
    messages.push({ role: "user", content });
    const completion = await client.chat.completions.create({
      model: connection.model,
      messages,
      max_tokens: 4,
    });
    const message = completion.choices[0]?.message;
    if (!message) throw new Error("The completion has no choice.");
    messages.push(message);
    length += message.content?.length ?? 0;
  }
  return { reward: length };
}

/** A process of the group that its child leads, by the start of its name. */
function processOf(leader: number, name: string): number {
  const lines = execFileSync("ps", ["-eo", "pid=,pgid=,comm="], { encoding: "utf8" }).split("\n");
  for (const line of lines) {
    const [pid, group, ...command] = line.trim().split(/\s+/);
    if (Number(group) === leader && command.join(" ").startsWith(name)) return Number(pid);
  }
  throw new Error(`The group ${leader} has no process ${name}.`);
}

/** The names that vLLM answers to. */
async function listed({ child }: RunningEngine): Promise<string[]> {
  const headers = { authorization: `Bearer ${child.key}` };
  const response = await fetch(`${child.baseURL}/v1/models`, { headers });
  return ((await response.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
}

/** The loop on vLLM, and no more of it than shows that tokens, logprobs and policies are the same. */
describe.skipIf(!wanted.includes("vllm"))("the server with --engine-url of a vLLM", () => {
  let vllm: RunningEngine;
  let server: TestServer;
  let wire: Wire;
  beforeAll(async () => {
    vllm = await startVllm();
    server = await startTestServer(undefined, {
      engineURL: vllm.child.baseURL,
      engineKey: vllm.child.key,
    });
    wire = recordWire();
  }, 420_000);
  afterAll(async () => {
    wire?.close();
    await server?.close();
    await vllm?.stop();
  });

  /** Each policy was published by its probe. It would not have been by that of another. */
  async function expectProbed(): Promise<void> {
    const checkpoints = createCheckpoints(server.dataDir, "none", pino({ level: "silent" }));
    const fp32 = { dtype: "float32" } as const;
    const probes = await Promise.all(
      [2, 3].map(async (step) => (await checkpoints.readManifest("words", step))?.probe),
    );
    for (const [at, probe] of probes.entries()) {
      if (!probe) throw new Error("a policy has no probe");
      const [own, other] = at === 0 ? ["words@2", "words@3"] : ["words@3", "words@2"];
      const { difference, tellsApart } = await probeEngine(
        vllm.engine,
        { policy: own },
        probe,
        fp32,
      );
      console.log(`vllm: probe of ${own}: ${difference} from the trainer's`);
      expect({ tellsApart, close: difference < 1e-4 }).toEqual({ tellsApart: true, close: true });
      await expect(probeEngine(vllm.engine, { policy: other }, probe, fp32)).rejects.toMatchObject({
        code: "bad_adapter",
      });
    }
  }

  it("trains what vLLM sampled, and samples from what was trained", async () => {
    const model = await server.hone.model({ name: "words" });
    for (let step = 1; step <= 3; step++) {
      const groups = await gather(model, twoWords, [{}, {}], { groupSize: 12, concurrency: 8 });
      const result = await model.train(groups, {
        learningRate: 5e-3,
        warmupSteps: 0,
        normalizerTokens: 8,
      });
      expect(result).toMatchObject({ trained: true, step, policy: `words@${step}` });
      // Published: vLLM itself lists it, and the name alone means it.
      expect(await listed(vllm)).toContain(`words@${step}`);
      expect((await model.info()).served).toBe(step);
      // From the second step on the rollouts are those of a trained adapter.
      expectSameLogprobs(result);
      console.log(
        `vllm: step ${step}: sampler/trainer difference over ${result.metrics["train_tokens"]} tokens: ` +
          `mean ${result.metrics["sampling/sampling_logp_difference/mean"]}, ` +
          `max ${result.metrics["sampling/sampling_logp_difference/max"]}`,
      );
    }

    const batches = wire.batches();
    expect(batches.map((batch) => [...new Set(batch.map(({ policy }) => policy))])).toEqual([
      [0],
      [1],
      [2],
    ]);
    expectTrainedWereSampled(batches, wire.sampled());
    await expectProbed();
    // The trained adapters say something else than the base does.
    const mean = (batch: number): number => {
      const all = (batches[batch] ?? []).flatMap(({ logprobs }) => logprobs);
      return all.reduce((sum, logprob) => sum + logprob, 0) / all.length;
    };
    expect(Math.abs(mean(2) - mean(0))).toBeGreaterThan(1e-3);
  });
});

describe.skipIf(!wanted.includes("vllm"))("the server with --engine vllm", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer(undefined, { engine: "vllm", replicas: 2 });
  }, 600_000);
  afterAll(() => server?.close());

  const states = async (): Promise<Record<string, { state: string; pid: number }>> => {
    const response = await server.fetch("/health");
    return ((await response.json()) as { components: Record<string, never> }).components;
  };

  it("passes its doctor, each engine by itself", async () => {
    const { code, out, error } = await runHere(["doctor", "--json", "--data-dir", server.dataDir]);
    const { findings = [] } = (out ? JSON.parse(out) : {}) as { findings?: Finding[] };
    for (const { check, measured, unit, note } of findings) {
      console.log(`vllm: doctor: ${check}: ${measured?.toPrecision(2)} ${unit} (${note})`);
    }
    expect(code, error).toBe(0);
    expect(findings).toHaveLength(11);
    for (const { check, verdict } of findings)
      expect({ check, verdict }).toEqual({ check, verdict: "ok" });
    const parity = findings.filter(({ check }) => check.startsWith("parity"));
    expect(parity).toHaveLength(5);
    for (const { note } of parity) expect(note).toMatch(/^engine-[12], the worst of 2 engines; /);
  }, 900_000);

  it("goes on when the core of one dies, and gives the new one what is live", async () => {
    const model = await server.hone.model({ name: "words" });
    const options = { learningRate: 5e-3, warmupSteps: 0, normalizerTokens: 8 };
    const groups = await gather(model, twoWords, [{}], { groupSize: 8, concurrency: 8 });
    expect(await model.train(groups, options)).toMatchObject({ policy: "words@1" });
    const sampled = async (): Promise<unknown> => {
      const { url: baseURL, key: apiKey } = server;
      const client = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey, maxRetries: 8 });
      const { model: policy, choices } = await client.chat.completions.create({
        model: "words",
        temperature: 0,
        max_tokens: 8,
        messages: [{ role: "user", content: "Say a word." }],
      });
      return { policy, text: choices[0]?.message.content };
    };
    const before = await sampled();
    expect(before).toMatchObject({ policy: "words@1" });

    // Each vLLM's own metrics are read, and rollouts had their places only until they ended.
    const metrics = async () => (await server.fetch("/metrics")).text();
    for (const engine of ["engine-1", "engine-2"]) {
      await expect
        .poll(metrics, { timeout: 20_000 })
        .toMatch(new RegExp(`^hone_engine_kv_use\\{engine="${engine}"\\} [\\d.e-]+$`, "m"));
      expect(await metrics()).toContain(`hone_engine_open_rollouts{engine="${engine}"} 0\n`);
      expect(await metrics()).toContain(`hone_engine_in_flight_bound{engine="${engine}"} 256\n`);
    }

    const kill = async (name: string): Promise<void> => {
      const leader = (await states())[name]?.pid ?? 0;
      process.kill(processOf(leader, "VLLM"), "SIGKILL");
      await expect
        .poll(async () => (await states())[name]?.state, { interval: 50, timeout: 60_000 })
        .toBe("restarting");
    };
    await kill("engine-1");
    // The other one takes all of it meanwhile.
    for (let request = 0; request < 4; request++) expect(await sampled()).toEqual(before);
    await expect
      .poll(async () => (await states())["engine-1"]?.state, { interval: 500, timeout: 400_000 })
      .toBe("ready");
    // Only the new one is there now: what it answers shows that it has the trained policy.
    await kill("engine-2");
    expect(await sampled()).toEqual(before);
    expect(readFileSync(join(server.dataDir, "logs", "engine-2.log"), "utf8")).toMatch(/vLLM|vllm/);
  }, 900_000);
});
