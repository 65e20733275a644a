import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { workerPython } from "../testing/running-engine.ts";
import { startServer, type RunningServer } from "../server.ts";
import { type Ended, runCli, runHere } from "../testing/run-cli.ts";

const base = fileURLToPath(new URL("../../../../models/hone-2048-1m", import.meta.url));
const parent = mkdtempSync(join(tmpdir(), "hone-cli-"));
afterAll(() => rmSync(parent, { recursive: true, force: true, maxRetries: 5 }));
const dataDir = join(parent, "data");

function hone(...args: string[]): Promise<Ended> {
  return runHere([...args, "--data-dir", dataDir]);
}

async function ok(...args: string[]): Promise<string> {
  const { code, out, error } = await hone(...args);
  expect({ code, error }).toMatchObject({ code: 0 });
  return out;
}

// oxlint-disable-next-line typescript/no-explicit-any
async function json(...args: string[]): Promise<any> {
  return JSON.parse(await ok(...args, "--json"));
}

const sha256 = (file: string): string =>
  createHash("sha256").update(readFileSync(file)).digest("hex");

// In order: the last test closes the server.
describe.skipIf(!workerPython())("beside a running server", { shuffle: false }, () => {
  let server: RunningServer;
  /** The first is of m@0 and has two turns. */
  const rollouts: string[] = [];
  let operation = "";

  // oxlint-disable-next-line typescript/no-explicit-any
  async function call(method: string, path: string, body?: unknown): Promise<any> {
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer = (await response.json()) as { error?: unknown };
    expect(answer.error ?? null).toBeNull();
    return answer;
  }

  async function rollout(
    reward: number,
    turns: number,
  ): Promise<{ rolloutId: string; reward: number }> {
    const { id } = await call("POST", "/v1/rollouts", { model: "m", group: "g" });
    const messages: unknown[] = [];
    for (let turn = 0; turn < turns; turn++) {
      messages.push({ role: "user", content: `Turn ${turn}: say a word.` });
      const path = `/v1/rollouts/${id}/v1/chat/completions`;
      const { choices } = await call("POST", path, { model: "m", messages, max_tokens: 4 });
      messages.push(choices[0].message);
    }
    await call("PATCH", `/v1/rollouts/${id}`, {
      status: "finished",
      reward,
      metrics: { score: 7 },
    });
    rollouts.push(id);
    return { rolloutId: id, reward };
  }

  async function ended(id: string): Promise<void> {
    for (;;) {
      const { status } = await call("GET", `/v1/operations/${id}`);
      if (status === "succeeded") return;
      expect(["queued", "running"]).toContain(status);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  beforeAll(async () => {
    server = await startServer({ base, dataDir, keep: 2 });
    await call("PUT", "/v1/models/m", { lora: { r: 4, alpha: 8 } });
    const groups = [
      { id: "g", rollouts: [await rollout(1, 2), await rollout(0, 1)] },
      { id: "lonely", rollouts: [await rollout(1, 1)] },
    ];
    const op = { type: "train", groups, config: { learningRate: 0.01 } };
    operation = (await call("POST", "/v1/models/m/operations", { clientToken: "t", op })).id;
    await ended(operation);
  });
  afterAll(() => server.close());

  test("models and runs: what was learnt, and what it took", async () => {
    const [model] = await json("models");
    expect(model).toMatchObject({ name: "m", base: "hone-2048-1m", learnt: 1, served: 1 });
    expect(model.lastReward).toBeCloseTo(2 / 3);
    expect(await ok("models")).toMatch(
      /^MODEL +BASE .*LAST REWARD.*\nm +hone-2048-1m +r4 α8 +1 +1 +0\.6667/,
    );
    const [run] = await json("runs");
    expect(run).toMatchObject({ id: operation, status: "succeeded", fromStep: 0 });
    expect(run.endedAt).toBeGreaterThan(run.startedAt);
    const line = (await ok("runs", "m")).split("\n")[1];
    expect(line).toMatch(new RegExp(`^${operation} +train +succeeded +0→1 .* 1 group_too_small$`));
    const none = await hone("runs", "nobody");
    expect(none.code).toBe(1);
    expect(none.error).toMatch(/^hone: There is no model "nobody"/);
  });

  test("inspect: a step, a rollout's tokens, a policy", async () => {
    const text = await ok("inspect", operation);
    for (const part of ["m@1 is served", "group_too_small", "grad_norm", rollouts[0]!]) {
      expect(text).toContain(part);
    }
    const shown = await json("inspect", operation);
    expect(shown.events.at(-1).type).toBe("ended");
    expect(shown.rollouts.map(({ id }: { id: string }) => id).toSorted()).toEqual(
      rollouts.slice(0, 2).toSorted(),
    );

    const { rollout: summary, completions } = await json("inspect", rollouts[0]!);
    expect(summary).toMatchObject({ trainedBy: operation, reward: 1, metrics: { score: 7 } });
    expect(completions).toHaveLength(2);
    const [first, second] = completions;
    expect(second.parentId).toBe(first.id);
    expect(first.tokens).toHaveLength(first.sampledIds.length);
    expect(first.logprobs).toHaveLength(first.sampledIds.length);
    const transcript = await ok("inspect", rollouts[0]!, "--tokens");
    expect(transcript.match(/user: Turn/g)).toHaveLength(2);
    expect(transcript).toContain(first.logprobs[0].toFixed(4));
    expect(transcript).toContain(JSON.stringify(first.tokens[0]));

    const policy = await json("inspect", "m@1");
    expect(policy).toMatchObject({ operationId: operation, parent: 0, live: true });
    expect(await ok("inspect", "m@1")).toContain("optimizer.safetensors");
    const missing = await hone("inspect", "m@9", "--json");
    expect(JSON.parse(missing.error).error.code).toBe("policy_not_found");
  });

  test("rollouts: those of steps and of evaluations, and only those asked for", async () => {
    const evaluated = await call("POST", "/v1/rollouts", { model: "m", mode: "eval", step: 0 });
    const all = await json("rollouts");
    expect(all.map(({ id }: { id: string }) => id)).toEqual([
      evaluated.id,
      ...rollouts.toReversed(),
    ]);
    const lines = (await ok("rollouts", "m")).trim().split("\n");
    expect(lines[0]).toMatch(/^ROLLOUT +MODE +STATUS +POLICY +GROUP +REWARD +COMPLETIONS/);
    expect(lines[1]).toMatch(
      new RegExp(`^${rollouts[0]} +train +finished +m@0 +g +1 +2 +${operation} `),
    );
    expect(lines[4]).toMatch(new RegExp(`^${evaluated.id} +eval +open +– +– +0 `));
    const evals = await json("rollouts", "m", "--mode", "eval");
    expect(evals.map(({ id }: { id: string }) => id)).toEqual([evaluated.id]);
    expect(await json("rollouts", "m", "--operation", operation)).toHaveLength(2);
    expect(await ok("rollouts", "m", "--limit", "2")).toContain(
      "(the newest 2; --limit shows more)",
    );
    expect(await ok("rollouts", "m", "--group", "nobody")).toContain(
      "No rollout of m is like that.",
    );
    await call("PATCH", `/v1/rollouts/${evaluated.id}`, { status: "finished" });
  });

  test.each(["garbage", "grp_1", "M@1", "m@x"])(
    "inspect of %j says what it takes",
    async (what) => {
      const { code, error } = await hone("inspect", what);
      expect(code).toBe(1);
      expect(error).toMatch(
        /^hone: ".*" is neither an operation \(op_…\) nor a rollout \(ro_…\) nor a policy/,
      );
    },
  );

  test("pin keeps a policy, unpin lets it go", async () => {
    await ok("pin", "m@1");
    expect(await ok("models", "m")).toMatch(/m@1 .*pinned/);
    expect(await ok("unpin", "m@1")).toContain("still kept as learnt");
    const wrong = await runCli(["pin", "m", "--data-dir", dataDir]);
    expect(wrong.code).toBe(1);
    expect(wrong.error).toContain("model@N");
  });

  test("export and import: the adapter goes round, the base stays", async () => {
    const before = sha256(join(base, "model.safetensors"));
    const adapter = join(parent, "adapter");
    await ok("export", "m@1", adapter);
    expect(readdirSync(adapter).toSorted()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
    ]);
    const again = await hone("export", "m@1", adapter);
    expect(again).toMatchObject({
      code: 1,
      error: `hone: ${adapter} is not empty. Name a new folder.\n`,
    });

    const merged = join(parent, "merged");
    await ok("export", "m@1", merged, "--merged");
    expect(readdirSync(merged)).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json"]),
    );
    expect(sha256(join(merged, "model.safetensors"))).not.toBe(before);
    expect(sha256(join(base, "model.safetensors"))).toBe(before);
    expect(readdirSync(parent).filter((name) => name.includes("partial"))).toEqual([]);

    expect((await ok("import", adapter, "--model", "copy")).trim()).toBe("copy@1");
    expect(readdirSync(join(dataDir, "imports"))).toEqual([]);
    const weights = (model: string): string =>
      sha256(join(dataDir, "models", model, "policies/1/adapter_model.safetensors"));
    expect(weights("copy")).toBe(weights("m"));
    const [run] = await json("runs", "copy");
    expect(run).toMatchObject({ type: "import", status: "succeeded" });

    const empty = await hone("import", parent, "--model", "copy");
    expect(empty.code).toBe(1);
    expect(empty.error).toMatch(/^hone: .* is not a PEFT adapter: it needs adapter_config.json/);
  });

  test("keys rotate: the new key is taken at once, the old one refused", async () => {
    const old = server.key;
    expect((await ok("keys")).trim()).toBe(join(dataDir, "key"));
    const line = (await ok("keys", "rotate")).trim();
    expect(line).toBe(`export HONE_API_KEY=${server.key}`);
    expect(server.key).not.toBe(old);
    const status = async (key: string): Promise<number> =>
      (await fetch(`${server.url}/health`, { headers: { authorization: `Bearer ${key}` } })).status;
    expect(await status(old)).toBe(401);
    expect(await status(server.key)).toBe(200);
    // What the first key made belongs to the second.
    expect(await json("runs", "m")).toHaveLength(1);
  });

  test("gc goes through the server, and without one works on its folder", async () => {
    const report = await json("gc", "--dry-run", "--keep", "1");
    expect(report).toMatchObject({ dryRun: true, removed: [] });
    await server.close();
    for (const command of [["models"], ["runs"], ["inspect", operation], ["pin", "m@1"]]) {
      const { code, error } = await hone(...command);
      expect(code).toBe(1);
      expect(error).toMatch(/^hone: No Hone server runs on .*\n$/);
    }
    const staging = join(dataDir, "models/m/staging/dead");
    mkdirSync(staging, { recursive: true });
    expect(await ok("gc")).toContain("m/staging/dead");
    expect(existsSync(staging)).toBe(false);
    const key = readFileSync(join(dataDir, "key"), "utf8");
    expect(await ok("keys", "rotate")).not.toContain(key.trim());
    expect(readFileSync(join(dataDir, "key"), "utf8")).not.toBe(key);
  });
});

test("a folder that is no data directory, and a server that is not there", async () => {
  const nowhere = ["--data-dir", join(parent, "nowhere")];
  const gc = await runCli(["gc", ...nowhere]);
  expect(gc).toMatchObject({ code: 1, out: "" });
  expect(gc.error).toMatch(/^hone: .*nowhere is not a data directory.*\n$/);
  const gone = await runCli(["models", "--url", "http://127.0.0.1:1"], { HONE_API_KEY: "k" });
  expect(gone.code).toBe(1);
  expect(gone.error).toMatch(/^hone: No Hone server answers at http:\/\/127.0.0.1:1\..*\n$/);
});
