/** A reward model from pairs on the shipped base: trained, asked under its name without a restart, and exported. */
import type { DpoExample, SupervisedEvent } from "@hone/client";
import type { PolicyDetail, RewardModelList, Scores } from "@hone/core";
import { namedJudge } from "@hone/recipes";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
}, 120_000);
afterAll(async () => {
  await server.close();
});

const colours = ["red", "blue", "green", "white", "black", "brown", "pink", "grey"];
const things = ["car", "house", "hat", "dog", "tree", "cup"];
const asked = (colour: string, thing: string) => [
  { role: "user" as const, content: `The ${thing} is ${colour}. Which colour?` },
];
const polite = (colour: string) => [
  { role: "assistant" as const, content: `It is ${colour}, thank you.` },
];
const rude = (colour: string) => [
  { role: "assistant" as const, content: `You fool, it is ${colour}.` },
];
const pairs: DpoExample[] = colours.flatMap((colour) =>
  things.map((thing) => ({
    prompt: asked(colour, thing),
    chosen: polite(colour),
    rejected: rude(colour),
  })),
);
const options = { learningRate: 3e-3, warmupSteps: 0, batchSize: 8, validation: 0.2 };

const score = async (body: unknown) => {
  const response = await server.fetch("/v1/score", { method: "POST", body: JSON.stringify(body) });
  return { status: response.status, value: (await response.json()) as Scores & { error: object } };
};

it("learns which answer is better, and scores under its name at once", async () => {
  const model = await server.hone.model({ name: "critic" });
  const events: SupervisedEvent[] = [];
  const run = await model.bradleyTerry(pairs, {
    ...{ ...options, epochs: 2 },
    onProgress: (event) => events.push(event),
  });
  expect(run).toMatchObject({ steps: 10, done: 10, policy: "critic@10", dropped: [] });
  const [first, last] = [run.validations[0]!, run.validations.at(-1)!];
  expect(last.loss).toBeLessThan(first.loss / 2);
  expect(last.metrics).toMatchObject({ accuracy: 1, mean_reward: expect.any(Number) });
  expect(last.metrics["margin"]).toBeGreaterThan(1);
  expect(events.filter(({ type }) => type === "step").at(-1)).toMatchObject({
    metrics: { accuracy: 1, train_tokens: 12, "completions/mean_length": null },
  });
  const again = await model.bradleyTerry(pairs, { ...options, epochs: 2 });
  expect(again).toMatchObject({ done: 0, policy: "critic@10" });

  const items = [polite, rude].map((side) => ({
    messages: [...asked("teal", "boat"), ...side("teal")],
  }));
  const { status, value } = await score({ model: "critic", items });
  expect(status).toBe(200);
  expect(value.model).toMatchObject({ name: "critic@10", labels: ["score"] });
  const [kind, unkind] = value.data.map(({ score: given }) => given ?? Number.NaN) as [
    number,
    number,
  ];
  expect(kind).toBeGreaterThan(unkind + 1);
  expect((await score({ model: "critic@10", items: [items[1]] })).value.data[0]?.score).toBeCloseTo(
    unkind,
    4,
  );
  // An earlier policy is another reward model.
  expect((await score({ model: "critic@1", items })).value.data[0]?.score).not.toBeCloseTo(kind, 2);
  expect(await score({ model: "critic@0", items })).toMatchObject({
    status: 400,
    value: { error: { param: "model", message: expect.stringContaining("bradleyTerry") } },
  });
  const list = (await (await server.fetch("/v1/reward-models")).json()) as RewardModelList;
  expect(list.data).toMatchObject([{ name: "critic", labels: ["score"] }]);
  const long = { text: "up ".repeat(9000) };
  expect(await score({ model: "critic", items: [items[0], long] })).toMatchObject({
    status: 400,
    value: { error: { code: "context_length_exceeded", param: "items[1]" } },
  });
  expect(
    (await score({ model: "critic", items: [long], tooLong: "truncate" })).value,
  ).toMatchObject({
    data: [{ score: expect.any(Number), truncated: true }],
  });

  // As a judge, by the name that the doctor takes; and the policy still answers as a chat model.
  const { baseURL, apiKey } = { baseURL: `${server.url}/v1`, apiKey: server.key };
  const judge = await namedJudge("rm:critic", { rewardModel: { baseURL, apiKey } });
  expect(judge.label).toBe("rm:critic");
  const chat = new OpenAI({ baseURL, apiKey });
  const answer = await chat.chat.completions.create({
    ...{ model: "critic", messages: asked("red", "car"), max_tokens: 8 },
  });
  expect(answer.choices[0]?.message.content).toEqual(expect.any(String));
}, 120_000);

it("imitation afterwards leaves the head as it is", async () => {
  const model = await server.hone.model({ name: "both" });
  await model.bradleyTerry(pairs.slice(0, 8), { learningRate: 1e-3, warmupSteps: 0, batchSize: 8 });
  const said = [{ messages: [...asked("red", "car"), ...polite("red")] }];
  await model.sft(said, { learningRate: 1e-5 });
  const files = async (step: number) => {
    const policy = await server.fetch(`/v1/models/both/policies/${step}`);
    return ((await policy.json()) as PolicyDetail).files["score.safetensors"];
  };
  expect(await files(1)).toMatchObject({ sha256: expect.any(String) });
  expect(await files(2)).toEqual(await files(1));
  expect((await score({ model: "both", items: said })).status).toBe(200);
}, 120_000);
