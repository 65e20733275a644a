import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gather, type RolloutModel } from "@hone/client";
import { HoneError, scoresSchema, type ChatMessage } from "@hone/core";
import { combineRewards, rewardModel } from "@hone/ruler/rewards";
import type { JudgeReport } from "@hone/recipes";
import { findEnvironment } from "@hone/server";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { base, startTestServer, type TestServer } from "../support/server.ts";

const conversations = Array.from({ length: 12 }, (_, n): ChatMessage[] => [
  { role: "user", content: `2 ${n}` },
  { role: "assistant", content: "left ".repeat(1 + (n % 4)) },
]);
/** More than the reward model reads. */
const long: ChatMessage[] = [{ role: "user", content: "up ".repeat(200) }];

async function rollout(model: RolloutModel, scenario: { prompt: string }) {
  const { model: name, ...connection } = model.connection();
  await new OpenAI(connection).chat.completions.create({
    model: name,
    messages: [{ role: "user", content: scenario.prompt }],
    max_tokens: 6,
  });
  return null; // the reward model gives it
}

describe("a reward model beside the base", () => {
  let folder: string;
  let expected: number[];
  let server: TestServer;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "hone-reward-model-"));
    expected = await makeRewardModel(folder);
    server = await startTestServer(undefined, { rewardModels: { taste: folder } });
    vi.stubEnv("HONE_URL", server.url);
    vi.stubEnv("HONE_API_KEY", server.key);
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    await server?.close();
    await rm(folder, { recursive: true, force: true });
  });

  const post = async (body: unknown) => {
    const response = await server.fetch("/v1/score", {
      method: "POST",
      body: JSON.stringify(body),
    });
    return { status: response.status, value: await response.json() };
  };

  it("is listed, and scores as transformers does, together and one by one", async () => {
    const list = await (await server.fetch("/v1/reward-models")).json();
    const card = { name: "taste", maxTokens: 128, labels: ["LABEL_0"] };
    expect(list).toEqual({ object: "list", data: [card] });

    const items = conversations.map((messages) => ({ messages }));
    const { value } = await post({ model: "taste", items });
    const together = scoresSchema.parse(value);
    expect(together.model).toEqual(card);
    for (const [i, { score }] of together.data.entries()) {
      expect(score).toBeCloseTo(expected[i]!, 4);
      const alone = scoresSchema.parse((await post({ model: "taste", items: [items[i]] })).value);
      expect(alone.data[0]!.score).toBeCloseTo(score!, 4);
    }
    expect(new Set(expected.map((value_) => value_.toFixed(3))).size).toBeGreaterThan(8);
  });

  it.each([
    [{ model: "nobody", items: [{ text: "a" }] }, 404, "model_not_found", "model", /taste/],
    [{ model: "taste", items: [] }, 400, "invalid_request", "items", /.*/],
    [{ model: "taste", items: [{}] }, 400, "invalid_request", "items[0].messages", /.*/],
    [
      { model: "taste", items: [{ text: "a" }, { messages: long }] },
      400,
      "context_length_exceeded",
      "items[1]",
      /reads 128/,
    ],
    [
      { model: "taste", items: [{ text: "a" }], label: "x" },
      400,
      "invalid_request",
      "label",
      /LABEL_0/,
    ],
    [
      { model: "taste", items: [{ text: "a" }], best: 1 },
      400,
      "unsupported_parameter",
      "best",
      /best/,
    ],
  ])("refuses what nobody can score: %#", async (body, status, code, param, said) => {
    const { status: answered, value } = await post(body);
    const { error } = value as { error: { code: string; param: string; message: string } };
    expect({ status: answered, code: error.code, param: error.param }).toEqual({
      status,
      code,
      param,
    });
    expect(error.message).toMatch(said);
  });

  it("gives rewards that train", async () => {
    const model = await server.hone.model({ name: "tasted" });
    const scenarios = [{ prompt: "2 4\n_ 2" }, { prompt: "8 4\n2 2" }];
    const groups = await gather(model, rollout, scenarios, { groupSize: 6 });
    const rewards = combineRewards([{ fn: rewardModel({ model: "taste" }), weight: 0.5 }]);
    const { groups: scored, metrics } = await rewards.score(groups);
    const trajectories = scored.flatMap((group) => group.trajectories);
    const { value } = await post({
      model: "taste",
      items: trajectories.map(({ messages }) => ({ messages })),
    });
    const scores = scoresSchema.parse(value).data;
    for (const [i, { reward, metrics: own }] of trajectories.entries()) {
      expect(reward).toBeCloseTo(scores[i]!.score! / 2, 4);
      expect(own["rewards/taste"]).toBeCloseTo(scores[i]!.score!, 4);
    }
    expect(metrics["rewards/taste/std"]).toBeGreaterThan(0);
    expect(await model.train(scored)).toMatchObject({ trained: true, step: 1 });
  });

  it("is examined by the judge doctor, beside a model of the server, on what the policy says", async () => {
    await server.hone.model({ name: "judge" });
    const out = join(folder, "doctor.json");
    const { code, said } = await judgeDoctor([
      ...["--task", fileURLToPath(new URL("../quickstart/one-word-task.ts", import.meta.url))],
      ...["--judges", "rm:taste,hone/judge@0", "--judge-tokens", "160", "--timeout", "60"],
      ...["--scenarios", "6", "--samples", "4", "--gold", "yes", "--out", out],
    ]);
    const { judges, policies } = JSON.parse(await readFile(out, "utf8")) as {
      judges: JudgeReport[];
      policies: string[];
    };
    expect(policies).toEqual([expect.stringMatching(/^judge-doctor-\w+@0$/)]);
    const [taste, judge] = judges;
    // A classifier of random weights: it repeats itself, sees no place, and its scores differ.
    expect(taste).toMatchObject({
      judge: "rm:taste",
      judgings: { asked: 12, valid: 12, repaired: 0 },
      noiseRatio: { value: expect.closeTo(0, 6) },
      positionBias: null,
      costUsdPerJudging: 0,
      errors: [],
    });
    expect(taste!.variance!.value).toBeGreaterThan(0);
    // The base of the repository knows no JSON, and goes on until it is cut off.
    expect(judge).toMatchObject({
      ...{ judge: "hone/judge@0", groups: 6, verdict: { level: "fail" } },
      judgings: { asked: expect.any(Number) },
      errors: [{ message: expect.stringMatching(/no valid scores.*cut off/) }],
    });
    expect(judge!.judgings.asked).toBeGreaterThan(0);
    expect(said).toMatch(/verdict +\w+ +fail\n/);
    expect(code).toBe(1);
    // The model that it played as is gone, and a mistyped name makes none.
    const [name = ""] = policies[0]?.split("@") ?? [];
    const found = (given: string) => server.hone.model({ name: given, create: false });
    await expect(found(name)).rejects.toMatchObject({ code: "model_not_found" });
    const task = fileURLToPath(new URL("../quickstart/one-word-task.ts", import.meta.url));
    const mistyped = ["--task", task, "--judges", "rm:taste", "--model", "jugde@0"];
    expect(await judgeDoctor(mistyped)).toMatchObject({
      code: 2,
      said: expect.stringMatching(/model_not_found.*jugde/),
    });
    await expect(found("jugde")).rejects.toMatchObject({ code: "model_not_found" });
  });

  it("says what becomes of a trajectory that is too long", async () => {
    const model = await server.hone.model({ name: "long" });
    const [group] = await gather(model, rollout, [{ prompt: "2" }], { groupSize: 2 });
    const [short, other] = group!.trajectories;
    const mixed = { ...group!, trajectories: [short!, { ...other!, messages: long }] };
    const score = async (options: Parameters<typeof rewardModel>[0]) =>
      (
        await combineRewards([{ fn: rewardModel(options) }]).score([mixed])
      ).groups[0]!.trajectories.map(({ reward }) => reward);

    const failure = await score({ model: "taste" }).catch((error: unknown) => error);
    expect(HoneError.isInstance(failure) && failure.cause).toMatchObject({
      code: "context_length_exceeded",
      message: expect.stringMatching(/^The trajectory has \d+ tokens, and 'taste' reads 128/),
    });
    const [kept, left] = await score({ model: "taste", tooLong: "null" });
    expect(kept).toEqual(expect.any(Number));
    expect(left).toBeNull();
    const cuts: { tokens: number; maxTokens: number }[] = [];
    const both = await score({
      model: "taste",
      tooLong: "truncate",
      onTruncated: (cut) => void cuts.push(cut),
    });
    expect(both).toEqual([expect.closeTo(kept!, 4), expect.any(Number)]);
    expect(cuts).toEqual([{ tokens: expect.any(Number), maxTokens: 128 }]);
    expect(cuts[0]!.tokens).toBeGreaterThan(128);
  });
});

it("a server whose reward model is none does not start, and says so", async () => {
  const failure = await startTestServer(undefined, { rewardModels: { taste: base } }).then(
    async (server) => server.close(),
    (error: unknown) => error,
  );
  expect(failure).toMatchObject({ message: expect.stringMatching(/sequence classifier/) });
});

/** The command as a user runs it, with the key and the address of the server in its environment. */
async function judgeDoctor(args: string[]): Promise<{ code: number; said: string }> {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const cli = "packages/recipes/src/cli/cli.ts";
  const command = ["--import", "tsx", "--conditions=@hone/source", cli, "judge-doctor", ...args];
  return await new Promise((resolve) => {
    execFile(process.execPath, command, { cwd: root }, (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), said: stdout + stderr });
    });
  });
}

/** Resolves to the logits that transformers alone gives. */
async function makeRewardModel(out: string): Promise<number[]> {
  const script = fileURLToPath(new URL("reward_model.py", import.meta.url));
  const python = await findEnvironment();
  const output = await new Promise<string>((resolve, reject) => {
    const child = execFile(
      python,
      [script, base, out],
      { env: { ...process.env, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" } },
      (error, stdout) => (error ? reject(error) : resolve(stdout)),
    );
    child.stdin?.end(JSON.stringify(conversations));
  });
  return JSON.parse(output) as number[];
}
