import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gather, readGroups } from "@hone/client";
import { defineTask, taskRollout, trainRun, type RunEvent } from "@hone/client/run";
import { coinOf, examineJudges, functionJudge, selfJudge, type ToJudge } from "@hone/recipes";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { worthOf } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-self-judge-"));
  server = await startTestServer();
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

const fraction = 0.5;
const scenarios = Array.from({ length: 16 }, (_, n) => ({ n, readable: n % 4 !== 3 }));
const [golden, plain] = [
  scenarios.filter((one) => coinOf(0, one) < fraction),
  scenarios.filter((one) => coinOf(0, one) >= fraction),
];
const readable = ({ scenario }: ToJudge) => (scenario as { readable: boolean }).readable;

let golds = 0;

/** The judge of this test says as little as its base does: what it said is spread over the candidates. */
const task = defineTask({
  train: [
    ...golden.filter((one) => one.readable).slice(0, 1),
    ...plain.filter((one) => one.readable).slice(0, 1),
    ...plain.filter((one) => !one.readable).slice(0, 1),
  ],
  heldOut: [
    { n: -1, readable: true },
    { n: -2, readable: true },
  ],
  shuffle: false,
  score: selfJudge({
    ...{ goldFraction: fraction, judgementsWithGold: 4, judgementsWithoutGold: 2 },
    // One step says too little of how well it judges.
    ...{ answerTokens: 8, judgeWeight: 0.5, trustAbove: null },
    read: (text, group) => {
      if (!readable(group)) return null;
      if (coinOf(0, group.scenario) >= fraction) {
        return group.candidates.map((_, at) => worthOf(text.repeat(at + 1)));
      }
      // Right and wrong in turn, so that the judgements with gold differ.
      golds += 1;
      const worths = group.candidates.map(({ messages }) =>
        worthOf(messages.at(-1)?.content as string),
      );
      // By their order, because worths may lie so close together that a judgement of them says nothing.
      return worths.map((one) => {
        const order = worths.filter((other) => other < one).length / (worths.length - 1);
        return golds % 2 === 0 ? order : 1 - order;
      });
    },
  }),
  async rollout(model, { n }, { temperature, answerTokens, seed }) {
    const connection = model.connection();
    const completion = await new OpenAI(connection).chat.completions.create(
      {
        // Seeded: four equal answers would be a group that does not train.
        ...{ model: connection.model, temperature, max_tokens: answerTokens, seed: seed ?? null },
        messages: [{ role: "user", content: `Say the number ${n}.` }],
      },
      { signal: model.signal },
    );
    return worthOf(completion.choices[0]?.message.content ?? "");
  },
  options: {
    ...{ steps: 1, groupsPerStep: 3, groupSize: 4, answerTokens: 8, verdict: "sampled" },
    train: { maxTokensPerMicroBatch: 2048 },
  },
});

it("rollouts and judgements train in one step, and what cannot be read is no zero", async () => {
  const ended: Extract<RunEvent, { type: "step-ended" }>[] = [];
  await trainRun(task, {
    ...{ name: "self", out: join(folder, "self"), hone: server.hone, ungated: true },
    onEvent: (event) => event.type === "step-ended" && ended.push(event),
  });
  const { record, result } = ended[0]!;
  expect(result.trained).toBe(true);
  // Of the solver's three groups one has no readable judgement; the judgements of the golden one are a fourth.
  expect(result.groups.map(({ reason }) => reason)).toEqual([null, null, "judge_failed", null]);
  expect(record).toMatchObject({ rollouts: 12, variance: { groups: 2, of: 3 } });
  expect(record.kinds?.["judge"]).toMatchObject({ rollouts: 4, variance: { groups: 1, of: 1 } });
  expect(record.kinds?.["judge"]?.metrics).toMatchObject({ judge_success: 1, filtered_count: 0 });
  const [gold, judged, failed, judgements] = await readGroups(
    join(folder, "self", "trajectories", "step-0001.jsonl"),
  );
  for (const { reward, metrics } of gold!.trajectories) expect(metrics["gold_reward"]).toBe(reward);
  for (const { reward, metrics } of judged!.trajectories) {
    expect(reward).not.toBeNull();
    expect(metrics).toMatchObject({ judge_success: 1 });
  }
  expect(failed!.trajectories.map(({ reward }) => reward)).toEqual([null, null, null, null]);
  expect(judgements!.metadata["kind"]).toBe("judge");
  for (const { completions, policy } of judgements!.trajectories) {
    expect(policy).toBe("self@0");
    expect(Object.values(completions ?? {})).toEqual([{ weight: 0.5 }]);
  }
});

it("the doctor examines judges on what the policy says, and nothing of it trains", async () => {
  const model = await server.hone.model({ name: "self" });
  const { maxModelLen: contextTokens, learnt } = await model.info();
  const rollout = taskRollout(task, { contextTokens });
  const groups = await gather(model, rollout, scenarios.slice(0, 6), {
    mode: "eval",
    groupSize: 4,
  });
  const judge = functionJudge("letters", (outputs) =>
    outputs.map(({ messages }) => worthOf(messages.at(-1)?.content as string)),
  );
  const [report] = await examineJudges(groups, [judge]);
  expect(report).toMatchObject({ groups: 6, judgings: { asked: 12, valid: 12 } });
  expect(report?.accuracy?.value).toBe(1);
  expect((await model.info()).learnt).toBe(learnt);
});
