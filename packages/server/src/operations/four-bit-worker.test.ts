import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { createHttpEngine } from "../engines/http-engine.ts";
import { createCheckpoints } from "../policies/checkpoints.ts";
import { createRendererClient } from "../renderer/http-renderer.ts";
import { startServer } from "../server.ts";
import {
  completionOf,
  ended,
  openTestState,
  silent,
  temporaryFolder,
  type TestState,
} from "../testing/fixtures.ts";
import { startWorkerChild, workerPython } from "../testing/running-engine.ts";
import { createTrainerClient } from "../trainer/client.ts";
import { readWorkerMemory } from "../trainer/worker-memory.ts";

const python = workerPython();
/** Only setup's environments are known to have it. */
const packs =
  python !== null &&
  spawnSync(python, ["-c", "import importlib.util as u; assert u.find_spec('bitsandbytes')"])
    .status === 0;

describe.skipIf(!packs)(
  "with a base in 4 bits (skipped where bitsandbytes is not installed)",
  () => {
    test("the engine samples from what the trainer trains, and moments are in 8 bits", async () => {
      const folder = await temporaryFolder();
      const child = await startWorkerChild(["--quantize", "nf4", "--threads-train", "1"]);
      const reached = { baseURL: () => child.baseURL, key: () => child.key };
      const engine = createHttpEngine({ kind: "embedded", ...reached });
      try {
        const server = await openTestState(folder.path, {
          engine: () => engine,
          trainer: createTrainerClient(reached),
          renderer: createRendererClient({ baseURL: () => "", key: () => "" }),
          base: {
            ...{ name: "base", maxModelLen: 512, vocabSize: 512 },
            ...{ dtype: "float32", quantize: "nf4" },
          },
        });
        await server.call("PUT", "/v1/models/m", { lora: { r: 32, alpha: 64 }, seed: 3 });
        for (const step of [1, 2]) {
          const groups = [{ id: "g", rollouts: await played(server) }];
          const config = { learningRate: 1e-3, warmupSteps: 0, optimizer: "adamw_8bit" };
          const { json } = await server.submit({ type: "train", groups, config });
          const { status, result } = await ended(server, json.id);
          expect({ status, warnings: result.warnings }).toEqual({
            status: "succeeded",
            warnings: [],
          });
          expect(result).toMatchObject({ trained: true, step });
          expect(result.metrics["sampling/sampling_logp_difference/mean"]).toBeLessThan(1e-3);
          expect(result.metrics.grad_norm).toBeGreaterThan(0);
        }
        const manifest = await createCheckpoints(server.dataDir, "none", silent).readManifest(
          "m",
          2,
        );
        expect(manifest?.precision).toEqual({ dtype: "float32", quantize: "nf4" });
        const bytes = (name: string): number => manifest?.files[name]?.bytes ?? 0;
        // In float32 the moments are twice the adapter.
        expect(bytes("optimizer.safetensors")).toBeLessThan(bytes("adapter_model.safetensors"));
        expect((await readWorkerMemory(child.baseURL, child.key)).base).toBeLessThan(2 * 1024 ** 2);
        await server.state.close();
      } finally {
        await engine.close();
        await child.stop();
        await folder.remove();
      }

      async function played(server: TestState): Promise<{ rolloutId: string; reward: number }[]> {
        const rollouts = [];
        for (const [member, reward] of [0, 1, 0.5].entries()) {
          const { json } = await server.call("POST", "/v1/rollouts", { model: "m", group: "g" });
          const lease = await server.state.router.leaseForRollout("local", json.id, "m");
          const prompt = Array.from({ length: 20 }, (_, place) => 50 + ((place * 7) % 200));
          const [sampled, logprobs]: [number[], number[]] = [[], []];
          for await (const chunk of engine.generate({
            ...{ model: lease.policy, prompt, n: 1, maxTokens: 24, temperature: 1, topP: 1 },
            ...{ seed: member, stop: [], stopTokenIds: [], stream: false },
            signal: new AbortController().signal,
          })) {
            sampled.push(...chunk.tokenIds);
            logprobs.push(...chunk.logprobs);
          }
          const completion = completionOf(json.id, {
            ...{ parentId: null, policy: lease.policy, promptSuffix: Int32Array.from(prompt) },
            ...{ sampled: Int32Array.from(sampled), logprobs: Float32Array.from(logprobs) },
          });
          await server.state.ledger.append([completion]);
          lease.release();
          await server.call("PATCH", `/v1/rollouts/${json.id}`, { status: "finished" });
          rollouts.push({ rolloutId: json.id as string, reward });
        }
        return rollouts;
      }
    });
  },
);

test("a remote engine has other weights than a base in 4 bits, and is refused by name", async () => {
  const base = fileURLToPath(new URL("../../../../models/hone-2048-1m", import.meta.url));
  const started = startServer({ base, quantize: "nf4", engineURL: "http://127.0.0.1:9" });
  await expect(started).rejects.toMatchObject({ code: "invalid_config", param: "quantize" });
});
