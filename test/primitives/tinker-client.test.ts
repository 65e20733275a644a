/** Tinker's published Python client against `/tinker`, in an environment of its own. */
import { spawn } from "node:child_process";
import { text as readAll } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect, it, onTestFinished } from "vitest";
import { startTestServer } from "../support/server.ts";
import { findTinkerPython } from "../support/tinker-python.ts";

const script = fileURLToPath(new URL("tinker_client.py", import.meta.url));

interface Told {
  model_id: string;
  rank: number;
  losses: number[];
  steps: number[];
  sampled: { ids: number[]; logprobs: number[]; stop: string; top: [number, number][][] }[];
  prompt_logprobs: (number | null)[];
  forward: number[][];
  ppo: Record<string, number>;
  after_ppo: number;
  after: number[];
  path: string;
  of_path: (number | null)[];
  of_base: (number | null)[];
  refused: Record<string, string | null>;
}

/** What the script prints at its end. */
async function runClient(python: string, given: unknown): Promise<Told> {
  const child = spawn(python, [script], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, TINKER_TELEMETRY: "0", PYTHONPATH: "" },
  });
  onTestFinished(() => void child.kill());
  child.stdin.end(JSON.stringify(given));
  const [out, err] = await Promise.all([readAll(child.stdout), readAll(child.stderr)]);
  const last = out.trim().split("\n").at(-1);
  if (!last?.startsWith("{")) throw new Error(`The client failed: ${err.slice(-4000)}`);
  return JSON.parse(last) as Told;
}

const sum = (all: readonly number[]) => all.reduce((total, one) => total + one, 0);

it("trains, samples and saves with Tinker's own client", async ({ skip }) => {
  const python = findTinkerPython();
  if (python === null) {
    skip("Tinker's client is not installed: run `node scripts/tinker/setup.mjs`");
    return;
  }
  const server = await startTestServer();
  onTestFinished(() => server.close());
  const asked = await server.hone.model({ name: "asked" });
  const texts = await Promise.all(
    ["The hat is red.", "The hat is blue and the car is green."].map(
      async (text) => (await asked.sample(text, { maxTokens: 1 })).promptIds,
    ),
  );
  const { base } = await asked.info();
  const told = await runClient(python, { url: server.url, key: server.key, base, texts });

  expect(told.model_id).toMatch(/^via-tinker:s[0-9a-f]{24}:0$/);
  expect(told.rank).toBe(8);
  expect(told.steps).toEqual([1, 2, 3, 4, 5, 6]);
  expect(told.losses[5]).toBeLessThan(told.losses[0]! * 0.85);

  // The sampler is of policy 6, and its logprobs are those of the trainer.
  const before = texts[0]!.slice(0, 3).length - 1;
  expect(told.sampled).toHaveLength(3);
  told.sampled.forEach(({ ids, logprobs, top }, at) => {
    const ours = told.forward[at]!.slice(before);
    expect(ours).toHaveLength(ids.length);
    expect(top).toHaveLength(ids.length);
    ours.forEach((one, i) => expect(one).toBeCloseTo(logprobs[i]!, 3));
  });
  expect(told.prompt_logprobs[0]).toBeNull();
  told.prompt_logprobs
    .slice(1)
    .forEach((one, i) => expect(one).toBeCloseTo(told.forward[0]![i]!, 3));

  // What was rewarded is likelier.
  expect(told.after_ppo).toBe(7);
  expect(told.ppo["sampling/sampling_logp_difference/max:max"]).toBeLessThan(1e-3);
  expect(sum(told.after.slice(before))).toBeGreaterThan(sum(told.forward[0]!.slice(before)));

  expect(told.path).toBe("tinker://via-tinker/weights/7");
  told.of_path.slice(1).forEach((one, i) => expect(one).toBeCloseTo(told.after[i]!, 3));
  expect(told.of_base).not.toEqual(told.prompt_logprobs);

  const contains = (text: string): unknown => expect.stringContaining(text);
  expect(told.refused).toEqual({
    no_gradient: contains("There was no forward_backward since the last optim_step"),
    loss: expect.stringMatching(/there is no .*gspo.* here/) as unknown,
    option: contains("has no such option here"),
    top_k: contains("there is no top_k here"),
    ttl: contains("nothing expires here"),
    base: contains("another/base"),
    state: contains("A model goes on from its newest policy"),
  });

  // The same log and the same model: Hone's own client sees it all.
  const model = await server.hone.model({ name: "via-tinker" });
  expect(await model.info()).toMatchObject({ learnt: 7, served: 7, lora: { r: 8, alpha: 32 } });
}, 300_000);
