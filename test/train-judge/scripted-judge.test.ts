import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  modelInfo,
  rolloutRoutes,
  send,
  startRouteServer,
} from "../../packages/client/src/testing/route-server.ts";
import { groupOf } from "../../packages/recipes/src/doctor/outputs.test-support.ts";
import { judgeTrainingText, trainedJudge, trainJudge } from "@hone/recipes";
import { beforeEach, expect, it, onTestFinished } from "vitest";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-scripted-judge-"));
  onTestFinished(() => rm(folder, { recursive: true }));
});

/** A server whose model answers each prompt as the test says; null is a server that is down. */
async function judgeThat(says: (prompt: string) => string | null, learnt = 0) {
  const asked: string[] = [];
  const chat = ({ body, path }: { body: any; path: string }, response: any): void => {
    const rollout = rollouts.get(path.split("/")[3] as string);
    if (rollout) rollout.completions += 1;
    const prompt = String(body.messages.at(-1).content);
    asked.push(prompt);
    const content = says(prompt);
    if (content === null) {
      response.writeHead(500, { "content-type": "text/plain" });
      response.end("down");
      return;
    }
    const message = { role: "assistant", content, refusal: null };
    send(response, { choices: [{ index: 0, message, finish_reason: "stop" }] });
  };
  const { rollouts, routes } = rolloutRoutes({ chat });
  const info = { ...modelInfo(), learnt, served: learnt };
  const server = await startRouteServer([
    ["POST /v1/chat/completions", chat],
    ["GET /v1/models/[^/]+/state", (_, response) => send(response, info)],
    ["GET /v1/models/[^/]+/policies/.*", (_, response) => send(response, { checkpoint: null })],
    ...routes,
  ]);
  onTestFinished(() => server.close());
  return { hone: server.hone({ maxRetries: 0 }), asked };
}

const pairs = Array.from({ length: 100 }, (_, at) => ({
  input: [{ role: "user", content: `Question ${at}` }],
  output: [at % 2 === 0 ? "good" : "bad", at % 2 === 0 ? "bad" : "good"].map((content) => ({
    answer: { content, label: { preference: at % 2 === 0 ? "A" : "B" } },
  })),
}));
const right = (prompt: string) =>
  prompt.indexOf("good") < prompt.indexOf("bad") ? "<better>A</better>" : "<better>B</better>";

it("measures a judge in both orders before and after, and says what changed", async () => {
  let trained = false;
  const { hone } = await judgeThat((prompt) => (trained ? right(prompt) : "<better>A</better>"));
  const given = {
    ...{ mode: "pairwise" as const, method: "grpo" as const, data: pairs, name: "m", hone },
    ...{ out: join(folder, "run"), run: { steps: 0 } },
    onEvent: ({ type }: { type: string }) => {
      if (type === "evaluated") trained = true;
    },
  };
  const report = await trainJudge(given);
  expect(report.cases).toEqual({ train: 80, heldOut: 20, ties: 0 });
  expect(report.figures["judge/accuracy"]).toMatchObject({
    ...{ before: { mean: 0.5 }, after: { mean: 1 }, of: 20 },
    difference: { mean: 0.5 },
  });
  expect(report.figures["judge/position_bias"]).toMatchObject({
    ...{ before: { mean: 1 }, after: { mean: 0 } },
  });
  expect(report.figures["judge/accuracy_given"]?.after.mean).toBe(1);
  expect(report.outcome).toBe("learnt");
  expect(judgeTrainingText(report)).toMatch(/judge\/accuracy rose by more than chance/);
  const file = join(folder, "run", "judge.json");
  const first = await readFile(file, "utf8");
  // The base was answered for, and is not asked again.
  expect(await trainJudge(given)).toEqual(report);
  expect(await readFile(file, "utf8")).toBe(first);
});

it("marks are measured by distance and by the order of a conversation's answers", async () => {
  const marks = Array.from({ length: 60 }, (_, at) => ({
    input: [{ role: "user", content: `Question ${at}` }],
    output: [0, 2, 4].map((helpfulness) => ({
      answer: { content: `worth ${helpfulness}`, label: { helpfulness } },
    })),
  }));
  const { hone } = await judgeThat((prompt) => {
    const worth = Number(/worth (\d)/.exec(prompt)?.[1]);
    return worth === 0 ? "no idea" : `<think>so</think><score>${Math.max(1, worth - 1)}</score>`;
  });
  const { figures } = await trainJudge({
    ...{ mode: "pointwise", method: "grpo", data: marks, name: "m", hone },
    ...{ out: join(folder, "run"), run: { steps: 0 } },
  });
  expect(figures["judge/accuracy"]?.after.mean).toBe(0);
  expect(figures["judge/mae"]?.after.mean).toBe(1);
  expect(figures["judge/parse_rate"]?.after.mean).toBeCloseTo(2 / 3);
  // Of three pairs the two with the answer that could not be read are wrong.
  expect(figures["judge/pair_accuracy"]).toMatchObject({ of: 12 });
  expect(figures["judge/pair_accuracy"]?.after.mean).toBeCloseTo(1 / 3);
});

it("a judge that is down ends the run before anything is trained, and the folder goes on later", async () => {
  let down = true;
  const { hone } = await judgeThat((prompt) => (down ? null : right(prompt)));
  const given = {
    ...{ mode: "pairwise" as const, method: "grpo" as const, data: pairs, name: "m", hone },
    ...{ out: join(folder, "run"), run: { steps: 0 } },
  };
  await expect(trainJudge(given)).rejects.toThrow(/The judge gave no answer|rollouts/);
  down = false;
  expect((await trainJudge(given)).figures["judge/accuracy"]?.before.mean).toBe(1);
});

it("reads no data, asks nobody and writes nothing if an option or a line is wrong", async () => {
  const { hone, asked } = await judgeThat(right);
  const file = join(folder, "data.jsonl");
  await writeFile(file, `${JSON.stringify(pairs[0])}\n{"input": 3}\n`);
  const out = join(folder, "run");
  const given = { mode: "pairwise", method: "sft", data: file, name: "m", hone, out } as const;
  await expect(trainJudge(given)).rejects.toThrow(/data\.jsonl:2 cannot be learnt from/);
  for (const [options, message] of [
    [{ mode: "listwise" }, /mode is "pointwise" or "pairwise"/],
    [{ method: "ppo" }, /method is "grpo"/],
    [{ run: { steps: 1 } }, /run is no option of the method "sft"/],
    [{ method: "bradley-terry", parity: true }, /parity is no option/],
    [{ method: "bradley-terry", ungated: true }, /ungated is no option/],
    [{ data: pairs.slice(0, 40) }, /8 held-out cases are too few .*--held-out-share.*--ungated/],
    [{ judge: 1 }, /judge/],
  ] as const) {
    await expect(trainJudge({ ...given, ...options } as never)).rejects.toThrow(message);
  }
  expect(asked).toEqual([]);
  await expect(readFile(join(out, "settings.json"))).rejects.toThrow(/ENOENT/);
});

it("measures by few held-out cases where it is told to", async () => {
  const { hone } = await judgeThat(right);
  const report = await trainJudge({
    ...{ mode: "pairwise", method: "grpo", data: pairs.slice(0, 40), name: "m", hone },
    ...{ out: join(folder, "run"), run: { steps: 0 }, ungated: true },
  });
  expect(report.cases).toEqual({ train: 32, heldOut: 8, ties: 0 });
});

it("a trained judge scores groups in its own format; what it cannot say is no zero", async () => {
  const { hone } = await judgeThat((prompt) => {
    const [first = -1, second = -1] = [...prompt.matchAll(/output (\d)/g)].map(([, n]) =>
      Number(n),
    );
    if (prompt.includes("g1")) return "I cannot tell.";
    return second < 0
      ? `<score>${first}</score>`
      : `<better>${first > second ? "A" : "B"}</better>`;
  }, 3);
  const groups = [groupOf("g0", [0, 0, 0]), groupOf("g1", [0, 0, 0])];
  const { signal } = new AbortController();
  for (const [mode, wanted] of [
    ["pointwise", [0, 0.25, 0.5]],
    ["pairwise", [0, 0.5, 1]],
  ] as const) {
    const { score } = trainedJudge({ model: "m", mode, hone });
    const [scored, failed] = await score(groups, { mode: "train", signal } as never);
    expect(scored!.trajectories.map(({ reward }) => reward)).toEqual(wanted);
    expect(failed!.trajectories.map(({ reward }) => reward)).toEqual([null, null, null]);
    expect(failed!.metadata["failed"]).toBe("judge_failed");
  }
  // Rollouts of several turns part: their last answers are to different conversations.
  const parted = groups.map((group) => ({
    ...group,
    trajectories: group.trajectories.map((one, at) => ({
      ...one,
      messages: [{ role: "user" as const, content: `turn ${at}` }, ...one.messages],
    })),
  }));
  const comparing = trainedJudge({ model: "m", mode: "pairwise", hone });
  await expect(comparing.score(parted, { mode: "train", signal } as never)).rejects.toThrow(
    /different conversations/,
  );
  const { hone: untrained } = await judgeThat(right);
  const { score } = trainedJudge({ model: "m", mode: "pairwise", hone: untrained });
  await expect(score(groups, { mode: "train", signal } as never)).rejects.toThrow(
    /never been trained/,
  );
});
