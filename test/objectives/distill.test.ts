/** On-policy distillation over HTTP: a student of the shipped base learns from a teacher that was trained by examples. */
import { ComparisonModel, gather, type TrainOptions } from "@hone/client";
import OpenAI from "openai";
import * as guide from "../../examples/readme/src/distillation-guide.ts";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  const teacher = await server.hone.model({ name: "teacher", lora: { r: 4, alpha: 8 } });
  const examples = colours.flatMap((colour) =>
    ["car", "hat"].map((thing) => ({
      messages: [
        { role: "user" as const, content: question(colour, thing) },
        { role: "assistant" as const, content: `It is ${colour}.` },
      ],
    })),
  );
  await teacher.sft(examples, { epochs: 2, batchSize: 8, ...rate });
}, 120_000);
afterAll(() => server?.close());

const colours = ["red", "blue", "green", "white", "black", "brown", "pink", "grey"];
const question = (colour: string, thing: string) => `The ${thing} is ${colour}. Which colour?`;
const rate = { learningRate: 3e-3, warmupSteps: 0 };

/** Each answer has a seed of its own, the same in every run of these tests. */
let drawn = 0;

/** Four rollouts of each colour, without a reward. */
async function play(name: string, scenarios = colours) {
  const model = await server.hone.model({ name, lora: { r: 8, alpha: 16 } });
  const groups = await gather(
    model,
    async (rollout, { colour }) => {
      const connection = rollout.connection();
      await new OpenAI(connection).chat.completions.create({
        model: connection.model,
        messages: [{ role: "user", content: question(colour, "boat") }],
        max_tokens: 16,
        seed: (drawn += 1),
      });
      return { reward: null };
    },
    scenarios.map((colour) => ({ colour })),
    { groupSize: 4, concurrency: 8 },
  );
  return { model, groups };
}

it("the student's KL to its teacher falls, without any reward", { timeout: 120_000 }, async () => {
  const kls: number[] = [];
  for (let step = 1; step <= 10; step++) {
    const { model, groups } = await play("student");
    const result = await model.train(groups, {
      type: "distill",
      teacher: { model: "teacher" },
      learningRate: 2e-3,
      warmupSteps: 0,
    });
    expect(result).toMatchObject({ trained: true, step, reasons: {} });
    expect(result.metrics).toMatchObject({ reward: null, "distill/teacher_share": 1 });
    kls.push(result.metrics["distill/kl"] ?? NaN);
  }
  // Estimates on few tokens: two steps at either end.
  const [begun, ended] = [kls.slice(0, 2), kls.slice(-2)].map(([a = 0, b = 0]) => a + b);
  expect(ended).toBeLessThan(begun! / 2);
});

it.each<[string, TrainOptions, object]>([
  [
    "no such model",
    { type: "distill", teacher: { model: "nobody" } },
    { code: "model_not_found", param: "op.config.teacher.model" },
  ],
  [
    "no such policy",
    { type: "distill", teacher: { model: "teacher", policy: 99 } },
    { code: "policy_not_found", param: "op.config.teacher.policy" },
  ],
])("a teacher that is not there is refused: %s", async (_name, options, error) => {
  const { model, groups } = await play("refused", ["red"]);
  await expect(model.train(groups, options)).rejects.toMatchObject(error);
  // The rollouts are still free.
  const { trained } = await model.train(groups, { type: "distill", teacher: "base" });
  expect(trained).toBe(true);
});

it.each(Object.entries(guide))("the guide's code for %s", async (name, train) => {
  const { model, groups } = await play(`guide-${name}`, ["red"]);
  // As a judge would have left them.
  const judged = groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one) => ({
      ...one,
      logs: ["RULER explanation: It should say blue."],
    })),
  }));
  await train(model, judged, `${server.url}/v1`, server.key);
  expect((await model.info()).learnt).toBe(1);
});

it(
  "another server is asked for what it thinks of the student's tokens",
  { timeout: 120_000 },
  async () => {
    const { model, groups } = await play("given", colours.slice(0, 2));
    const at = (name: string) =>
      new ComparisonModel({ baseURL: `${server.url}/v1`, apiKey: server.key, model: name });
    const taught = await model.teacherLogprobs(groups, at("teacher"));
    const own = await model.teacherLogprobs(groups, at("given@0"));
    const ids = groups.flatMap(({ trajectories }) =>
      trajectories.map((one) => one.rolloutId ?? ""),
    );
    expect(Object.keys(taught)).toEqual(ids);
    // Asked what it sampled itself, a policy says what it said then.
    for (const id of ids) {
      const { data } = (await (await server.fetch(`/v1/rollouts/${id}/completions`)).json()) as {
        data: { id: string; logprobs: number[] }[];
      };
      expect(data).toHaveLength(1);
      for (const { id: completion, logprobs } of data) {
        const said = own[id]?.[completion] ?? [];
        expect(said).toHaveLength(logprobs.length);
        said.forEach((value, i) => expect(value).toBeCloseTo(logprobs[i]!, 3));
      }
    }
    // One rollout has no teacher.
    const { [ids[0]!]: _, ...most } = taught;
    const given = { type: "distill", teacher: "given" } as const;
    await expect(model.train(groups, { ...given })).rejects.toMatchObject({
      param: "teacherLogprobs",
    });
    const short = { ...most, [ids[1]!]: { [Object.keys(taught[ids[1]!]!)[0]!]: [-1] } };
    await expect(model.train(groups, { ...given, teacherLogprobs: short })).rejects.toMatchObject({
      code: "invalid_request",
      param: "op.groups[0].rollouts[1].teacherLogprobs",
    });
    const result = await model.train(groups, { ...given, teacherLogprobs: most });
    expect(result).toMatchObject({ trained: true, reasons: {} });
    expect(result.groups.map(({ dropped }) => dropped)).toEqual([{ no_teacher: 1 }, {}]);
    const values = Object.values(most).flatMap((one) => Object.values(one).flat());
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(result.metrics["distill/teacher_logprob"]).toBeCloseTo(mean, 4);
  },
);

it(
  "words of feedback change what the teacher thinks, and train",
  { timeout: 120_000 },
  async () => {
    const first = await play("told", ["red"]);
    const result = await first.model.train(first.groups, {
      ...{ type: "distill", teacher: { feedback: true, model: "teacher" }, learningRate: 1e-12 },
      feedback: (one) => (one === first.groups[0]?.trajectories[0] ? null : "Say blue."),
    });
    expect(result).toMatchObject({ trained: true, warnings: [] });
    expect(result.groups[0]).toMatchObject({ trainedRollouts: 3, dropped: { no_teacher: 1 } });

    // The policy itself, once it has read the feedback, which stands where the template says. Without it the KL were 0.
    const { model, groups } = await play("told", ["red"]);
    const own = { feedback: "{message} ({feedback})" };
    const feedback = () => "Say blue.";
    await expect(
      model.train(groups, { type: "distill", teacher: { feedback: "{message}" }, feedback }),
    ).rejects.toMatchObject({ code: "invalid_request", param: "teacher.feedback" });
    await expect(
      model.train(groups, { type: "distill", teacher: "base", feedback }),
    ).rejects.toMatchObject({ code: "invalid_request", param: "feedback" });
    const { metrics } = await model.train(groups, { type: "distill", teacher: own, feedback });
    expect(metrics["distill/kl"]).not.toBe(0);
    expect(metrics["grad_norm"]).toBeGreaterThan(0);
  },
);

it("distillation has to name its teacher", async () => {
  const model = await server.hone.model({ name: "student" });
  // @ts-expect-error: the type says so too
  await expect(model.train([], { type: "distill" })).rejects.toMatchObject({
    code: "invalid_request",
    param: "teacher",
  });
});
