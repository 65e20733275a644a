import { randomUUID } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { cp } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startWorkerChild, workerPython } from "../testing/running-engine.ts";
import { createHttpEngine, type HttpEngine } from "../engines/http-engine.ts";
import { probeEngine } from "../engines/probe.ts";
import { createCheckpoints } from "../policies/checkpoints.ts";
import type { Probe } from "../ports/live-set.ts";
import type { Trainer } from "../ports/trainer.ts";
import type { Child } from "../supervise/child.ts";
import type { Renderer } from "../ports/renderer.ts";
import { createRendererClient } from "../renderer/http-renderer.ts";
import { isStopped } from "../testing/stopped.ts";
import { createTrainerClient } from "../trainer/client.ts";
import {
  completionOf,
  ended,
  openTestState,
  silent,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";

/**
 * Steps on the real worker: its engine samples, its trainer trains. Each test copies one data directory
 * with two groups of rollouts that wait to be trained.
 */
describe.skipIf(workerPython() === null)("with the real worker", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let child: Child;
  let engine: HttpEngine;
  let trainer: Trainer;
  let groups: { id: string; rollouts: { rolloutId: string; reward: number }[] }[];
  let template: string;

  beforeAll(async () => {
    folder = await temporaryFolder();
    child = await startWorkerChild(["--threads-train", "1"]);
    engine = createHttpEngine({
      kind: "embedded",
      baseURL: () => child.baseURL,
      key: () => child.key,
    });
    trainer = createTrainerClient({ baseURL: () => child.baseURL, key: () => child.key });
    template = `${folder.path}/template`;
    const server = await open(template);
    await server.call("PUT", "/v1/models/m", { lora: { r: 4, alpha: 8 }, seed: 3 });
    groups = [await playGroup(server, "a"), await playGroup(server, "b")];
    await server.state.close();
  });

  afterAll(async () => {
    await engine?.close();
    await child?.stop();
    await folder?.remove();
  });

  async function open(dataDir: string): Promise<TestState> {
    // Policies of another test's data directory have the same names.
    for (const policy of (await engine.served()).keys()) await engine.unload(policy);
    // Rollouts are learnt from by the ids of the ledger. Only a reward model's conversations are rendered: a token a
    // character.
    const renderer: Renderer = {
      ...createRendererClient({ baseURL: () => "", key: () => "" }),
      withTemplate: () => renderer,
      conversation: async (messages) =>
        Array.from(messages.map(({ content }) => `${content as string};`).join(""), (letter) =>
          letter.charCodeAt(0),
        ),
    };
    return openTestState(dataDir, { engine: () => engine, trainer, renderer });
  }

  async function copy(name: string, from = template): Promise<TestState> {
    const dataDir = `${folder.path}/${name}`;
    // libsql removes these a moment after it was closed.
    const filter = (path: string) => !/hone\.db-(wal|shm)$/.test(path);
    await cp(from, dataDir, { recursive: true, filter });
    return open(dataDir);
  }

  /** Two turns each; the second prompt continues the first answer token for token. */
  async function playGroup(server: TestState, id: string) {
    const rollouts = [];
    for (let member = 0; member < 4; member++) {
      const { json } = await server.call("POST", "/v1/rollouts", { model: "m", group: id });
      let prompt = Array.from(
        { length: 20 + 3 * member },
        (_, i) => 50 + ((i * 7 + id.charCodeAt(0)) % 200),
      );
      let parentId: string | null = null;
      let suffix = prompt;
      let reward = 0;
      for (let turn = 0; turn < 2; turn++) {
        const lease = await server.state.router.leaseForRollout("local", json.id, "m");
        const sampled: number[] = [];
        const logprobs: number[] = [];
        for await (const chunk of engine.generate({
          model: lease.policy,
          prompt,
          n: 1,
          maxTokens: 24,
          temperature: 1,
          topP: 1,
          seed: member * 10 + turn,
          stop: [],
          stopTokenIds: [],
          stream: false,
          signal: new AbortController().signal,
        })) {
          sampled.push(...chunk.tokenIds);
          logprobs.push(...chunk.logprobs);
        }
        const completion = completionOf(json.id, {
          parentId,
          policy: lease.policy,
          promptSuffix: Int32Array.from(suffix),
          sampled: Int32Array.from(sampled),
          logprobs: Float32Array.from(logprobs),
        });
        await server.state.ledger.append([completion]);
        lease.release();
        reward += sampled.filter((token) => token % 2 === 0).length / sampled.length;
        parentId = completion.id;
        suffix = [60, 61, 62];
        prompt = [...prompt, ...sampled, ...suffix];
      }
      await server.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished" });
      rollouts.push({ rolloutId: json.id as string, reward });
    }
    return { id, rollouts };
  }

  const config = {
    learningRate: 1e-3,
    warmupSteps: 0,
    optimizerSteps: 2,
    maxTokensPerMicroBatch: 128,
  };
  const everything = {
    ...{ type: "grpo", beta: 0.1, entropyCoef: 0.01, topEntropyQuantile: 0.5 },
    ...{ offPolicyMaskThreshold: 0.5, mismatchMask: "sequence", importanceLevel: "sequence" },
  };
  const train = (objective = {}) => ({
    type: "train",
    groups,
    config: { ...config, ...objective },
    cursor: { next: 2 },
  });
  const submit = async (
    server: TestState,
    token: string,
    op: object = train(),
  ): Promise<string> => {
    const reply = await server.call("POST", "/v1/models/m/operations", {
      clientToken: token,
      expectedStep: 0,
      op,
    });
    expect(reply.status).toBe(200);
    return reply.json.id;
  };
  const manifest = (server: TestState, step: number) =>
    createCheckpoints(server.dataDir, "none", silent).readManifest("m", step);
  const files = async (server: TestState, step: number) => (await manifest(server, step))?.files;
  async function probe(server: TestState, step: number): Promise<Probe> {
    const found = (await manifest(server, step))?.probe;
    if (!found) throw new Error(`m@${step} has no probe`);
    return found;
  }

  test("rollouts of an earlier policy are compared too, each with its own policy's weights", async () => {
    const server = await copy("earlier");
    const metric = "sampling/sampling_logp_difference/mean";
    const step = async (token: string, group: object, expectedStep: number) => {
      // So large that the policies' logprobs differ by far more than the limit below.
      const op = { ...train({ optimizerSteps: 1, learningRate: 0.05 }), groups: [group] };
      const body = { clientToken: token, expectedStep, op };
      const { json } = await server.call("POST", "/v1/models/m/operations", body);
      return ended(server, json.id);
    };
    expect(await step("a", groups[0]!, 0)).toMatchObject({ status: "succeeded" });
    const { status, result } = await step("b", groups[1]!, 1);
    expect(status).toBe("succeeded");
    expect(result.warnings).toEqual([]);
    expect(result.metrics[metric]).toBeGreaterThan(0);
    expect(result.metrics[metric]).toBeLessThan(1e-4);
    await server.state.close();
  });

  test("a step trains, commits and is served; logprobs of engine and trainer agree", async () => {
    const server = await copy("once");
    const result = await ended(server, await submit(server, "t"));
    expect(result).toMatchObject({
      status: "succeeded",
      result: { trained: true, step: 1, warnings: [] },
    });
    const { metrics } = result.result;
    expect(metrics["sampling/sampling_logp_difference/mean"]).toBeLessThan(1e-3);
    expect(metrics.grad_norm).toBeGreaterThan(0);
    // The prompts of its groups went through the model once.
    expect(metrics["unpacked_micro_batches"]).toBe(0);
    expect(metrics["model_tokens"]).toBeLessThan(metrics["sequence_tokens"] ?? 0);
    expect([...(await engine.served()).keys()]).toEqual(["m@0", "m@1"]);
    expect((await server.call("GET", "/v1/models/m/state")).json).toMatchObject({
      learnt: 1,
      served: 1,
      cursor: { next: 2 },
    });
    const [before, after] = [await files(server, 0), await files(server, 1)];
    expect(Object.keys(after ?? {}).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "optimizer.safetensors",
      "trainer.json",
    ]);
    expect(after?.["adapter_model.safetensors"]).not.toEqual(before?.["adapter_model.safetensors"]);
    await server.state.close();
  });

  test("a probe tells the trained policy from its base, and from the base of other weights", async () => {
    const server = await copy("probed");
    await ended(server, await submit(server, "t"));
    const [fresh, trained] = [await probe(server, 0), await probe(server, 1)];
    expect(fresh.policy).toEqual(fresh.base);
    const fp32 = { dtype: "float32" } as const;
    const { difference, tellsApart } = await probeEngine(engine, { policy: "m@1" }, trained, fp32);
    expect(difference).toBeLessThan(1e-4);
    expect(tellsApart).toBe(true);
    await expect(probeEngine(engine, { policy: "m@0" }, trained, fp32)).rejects.toMatchObject({
      code: "bad_adapter",
      message: expect.stringContaining("those of the base"),
    });
    await expect(probeEngine(engine, { policy: "m@1" }, fresh, fp32)).rejects.toMatchObject({
      code: "bad_adapter",
    });
    await server.state.close();
  });

  const { optimizerSteps: _, ...one } = config;
  const rollouts = () =>
    groups.flatMap((group) => group.rollouts.map(({ rolloutId }) => ({ rolloutId })));
  test.each([
    ["the default", () => train()],
    ["one with a reference, masks and a bonus", () => train(everything)],
    ["imitation", () => ({ type: "sft", examples: rollouts(), config: one })],
    [
      "preferences",
      () => {
        const of = rollouts();
        const examples = of.slice(1).map((rejected, at) => ({ chosen: of[at], rejected }));
        return { type: "dpo", examples, config: { ...one, loss: "ipo", sftWeight: 0.5 } };
      },
    ],
    [
      "a reward model",
      () => {
        const said = (content: string) => [{ role: "assistant", content }];
        const examples = Array.from({ length: 6 }, (_example, at) => ({
          prompt: [{ role: "user", content: `What comes after ${"on and ".repeat(at + 4)}on?` }],
          chosen: said(`Please see number ${at}.`),
          rejected: said(`No. ${at}.`),
        }));
        return { type: "bradley_terry", examples, config: one };
      },
    ],
  ])(
    "on a copy of the data directory, and after the worker was killed in it, the bytes are the same: %s",
    async (name, opOf) => {
      await redoneAlike(name, opOf());
    },
  );

  test("distillation from a policy gives the same bytes when it is done again, and not those of another teacher", async () => {
    const taught = await copy("taught");
    await taught.call("PUT", "/v1/models/teacher", { lora: { r: 2, alpha: 8 } });
    const { json } = await taught.call("POST", "/v1/models/teacher/operations", {
      clientToken: "teach",
      op: { type: "sft", examples: rollouts().slice(0, 2), config: { ...one, learningRate: 0.02 } },
    });
    expect((await ended(taught, json.id)).status).toBe("succeeded");
    await taught.state.close();
    const unrewarded = groups.map(({ id, rollouts: members }) => ({
      id,
      rollouts: members.map(({ rolloutId }) => ({ rolloutId, reward: null })),
    }));
    const distilled = (teacher: unknown) => ({
      ...train({ type: "distill", teacher, klDiscount: 0.5 }),
      groups: unrewarded,
    });
    const of = `${folder.path}/taught`;
    const { result, made } = await redoneAlike("taught", distilled({ model: "teacher" }), of);
    // Policy 0 is the base itself.
    expect(result.metrics["distill/kl"]).not.toBe(0);
    expect(result.metrics).toMatchObject({ "distill/teacher_share": 1, reward: null });
    const other = await copy("other teacher", of);
    const own = await ended(other, await submit(other, "t", distilled("base")));
    expect(own.result).toMatchObject({ trained: true });
    expect(await files(other, 1)).not.toEqual(made);
    await other.state.close();
  });

  async function redoneAlike(name: string, op: object, from = template) {
    const calm = await copy(`calm ${name}`, from);
    expect((await ended(calm, await submit(calm, "t", op))).status).toBe("succeeded");
    const expected = await files(calm, 1);
    const expectedProbe = await probe(calm, 1);
    await calm.state.close();

    await stopInStep();
    const server = await copy(`killed ${name}`, from);
    const id = await submit(server, "t", op);
    await expect.poll(() => isStopped(child.pid)).toBe(true);
    await child.kill();
    child = await startWorkerChild(["--threads-train", "1"]);
    await server.state.onEngineReady();
    const over = await ended(server, id);
    expect(over).toMatchObject({ status: "succeeded", result: { step: 1 } });
    const told = await (await server.app.request(`/v1/operations/${id}/events`)).text();
    expect(told).toContain("The worker died.");
    expect(await files(server, 1)).toEqual(expected);
    expect(await probe(server, 1)).toEqual(expectedProbe);
    const served = [...(await engine.served()).keys()];
    expect(served.filter((policy) => policy.startsWith("m@"))).toEqual(["m@0", "m@1"]);
    await server.state.close();
    return { result: over.result, made: expected };
  }

  test("an abort ends the step and leaves nothing behind", async () => {
    await stopInStep();
    const server = await copy("aborted");
    const id = await submit(server, "t");
    await expect.poll(() => isStopped(child.pid)).toBe(true);
    const sent = abortSent();
    await server.call("POST", `/v1/operations/${id}/abort`);
    // The worker finds it at its door when it goes on, with most of the step before it.
    await sent;
    process.kill(child.pid, "SIGCONT");
    expect(await ended(server, id)).toMatchObject({
      status: "aborted",
      error: { code: "aborted" },
    });
    expect((await server.call("GET", "/v1/models/m/state")).json).toMatchObject({
      learnt: 0,
      served: 0,
    });
    // The worker is free again, and so are the rollouts.
    expect((await ended(server, await submit(server, "u"))).status).toBe("succeeded");
    await server.state.close();
  });

  test("what the worker refuses is told as it said it", async () => {
    const server = await copy("refused");
    const reply = await server.call("POST", "/v1/models/m/operations", {
      clientToken: "t",
      op: { type: "train", groups, config: { ...config, maxMismatch: 1e-12 } },
    });
    const result = await ended(server, reply.json.id);
    expect(result).toMatchObject({ status: "failed", error: { code: "train_failed" } });
    expect(result.error.message).toContain("sampler_mismatch");
    await server.state.close();
  });

  /** A worker that stops in the middle of the first step that it trains. */
  async function stopInStep(): Promise<void> {
    await child.stop();
    child = await startWorkerChild(["--threads-train", "1"], {
      HONE_FAULT: "worker.backward@2:stop",
      HONE_FAULT_MARK: `${folder.path}/${randomUUID()}`,
    });
  }

  /** Resolves when the next abort has gone to the worker, whether or not that can answer. */
  function abortSent(): Promise<void> {
    const channel = "undici:client:sendHeaders";
    return new Promise((resolve) => {
      const onSent = (message: unknown): void => {
        if (!(message as { request: { path: string } }).request.path.endsWith("/abort")) return;
        unsubscribe(channel, onSent);
        resolve();
      };
      subscribe(channel, onSent);
    });
  }
});
