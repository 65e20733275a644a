import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OperationEvent } from "@hone/core";
import { expect, it, onTestFinished } from "vitest";
import {
  modelInfo,
  operation,
  rolloutRoutes,
  send,
  sendError,
  startRouteServer,
} from "../../packages/client/src/testing/route-server.ts";
import { trainJudge, type JudgeTrainingEvent } from "@hone/recipes";

/** A server that keeps a model's steps, and whose model judges and scores rightly once it has made one. */
async function learningServer() {
  const state = { learnt: 0, cursor: null as unknown, failing: false };
  const examples: any[] = [];
  const scored: string[] = [];
  const types: string[] = [];
  const { rollouts, routes } = rolloutRoutes({
    chat({ body, path }, response) {
      const rollout: any = rollouts.get(path.split("/")[3] as string);
      rollout.completions += 1;
      const text = String(body.messages.at(-1).content);
      const right = text.indexOf("good") < text.indexOf("bad") ? "A" : "B";
      const content = state.learnt > 0 ? `<better>${right}</better>` : "well";
      const message = { role: "assistant", content, refusal: null };
      send(response, { choices: [{ index: 0, message, finish_reason: "stop" }] });
    },
  });
  const info = () => ({ ...modelInfo(state.cursor), learnt: state.learnt, served: state.learnt });
  const server = await startRouteServer([
    ["(PUT /v1/models/m|GET /v1/models/m/state)", (_, response) => send(response, info())],
    ["GET /v1/models/[^/]+/policies/.*", (_, response) => send(response, { checkpoint: null })],
    [
      "POST /v1/models/m/operations",
      ({ body: { op } }, response) => {
        if (state.failing && state.learnt === 1) {
          sendError(response, 400, "invalid_request", "The worker is gone.");
          return;
        }
        state.learnt += 1;
        state.cursor = op.cursor;
        types.push(op.type);
        examples.push(...op.examples);
        send(response, { ...operation("queued"), id: `op_${state.learnt}`, type: op.type }, 202);
      },
    ],
    [
      "GET /v1/operations/op_\\d+/events",
      ({ path }, response) => {
        const step = Number(/op_(\d+)/.exec(path)?.[1]);
        const type = types[step - 1];
        const result = {
          ...{ type, trained: true, step, policy: `m@${step}`, examples: 1, dropped: [] },
          ...{ metrics: { loss: 1 / step }, checkpoint: null, warnings: [] },
        };
        const ended = { ...operation("succeeded"), id: `op_${step}`, type, result };
        const event = { type: "ended", seq: 1, at: 1, operation: ended } as OperationEvent;
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end(`id: 1\ndata: ${JSON.stringify(event)}\n\n`);
      },
    ],
    [
      "POST /v1/score",
      ({ body }, response) => {
        scored.push(body.model);
        const data = body.items.map(({ messages }: any) => ({
          ...{ score: messages.at(-1).content === "good" ? 1 : -1, tokens: 3, truncated: false },
        }));
        const model = { name: body.model, maxTokens: 99, labels: ["score"] };
        send(response, { object: "hone.scores", model, data });
      },
    ],
    ...routes,
  ]);
  onTestFinished(() => server.close());
  const folder = await mkdtemp(join(tmpdir(), "hone-scripted-learning-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  return { state, examples, types, scored, out: folder, hone: server.hone({ maxRetries: 0 }) };
}

const pairs = Array.from({ length: 100 }, (_, at) => {
  const preference = at % 10 === 9 ? "tie" : at % 2 === 0 ? "A" : "B";
  const contents = at % 2 === 0 ? ["good", "bad"] : ["bad", "good"];
  return {
    input: [{ role: "user", content: `Question ${at}` }],
    output: contents.map((content) => ({ answer: { content, label: { preference } } })),
  };
});

it("imitation shows the right verdict for the order that is shown, and goes on after a failed step", async () => {
  const { state, examples, types, out, hone } = await learningServer();
  const events: JudgeTrainingEvent[] = [];
  const given = {
    ...{ mode: "pairwise" as const, method: "sft" as const, data: pairs, name: "m", hone, out },
    ...{ batchSize: 40, onEvent: (event: JudgeTrainingEvent) => void events.push(event) },
  };
  state.failing = true;
  await expect(trainJudge(given)).rejects.toThrow(/The worker is gone/);
  expect(state.learnt).toBe(1);
  state.failing = false;
  const report = await trainJudge(given);
  // The step that was done is not done again.
  expect(types).toEqual(["sft", "sft"]);
  expect(examples).toHaveLength(80);
  for (const { messages } of examples) {
    const [shown, said] = messages.map(({ content }: { content: string }) => content);
    if (said === "<better>tie</better>") continue;
    const right = shown.indexOf('"good"') < shown.indexOf('"bad"') ? "A" : "B";
    expect(said).toBe(`<better>${right}</better>`);
  }
  const learning = events.filter(({ type }) => type === "learning");
  expect(learning).toMatchObject([
    { step: 1, steps: 2 },
    { step: 2, steps: 2 },
  ]);
  expect(report.figures["judge/parse_rate"]).toMatchObject({
    before: { mean: 0 },
    after: { mean: 1 },
  });
  expect(report).toMatchObject({ outcome: "learnt", policy: "m@0" });
});

it("Bradley-Terry learns from preferences that are no ties, and is measured by scores in both orders", async () => {
  const { examples, types, scored, out, hone, state } = await learningServer();
  const given = {
    ...{ mode: "pairwise" as const, method: "bradley-terry" as const, data: pairs, name: "m" },
    ...{ hone, out, batchSize: 80 },
  };
  const report = await trainJudge(given);
  expect(types).toEqual(["bradley_terry"]);
  const { train, heldOut, ties } = report.cases;
  expect([train, heldOut, ties]).toEqual([80, 20, 10]);
  for (const { chosen, rejected } of examples) {
    expect([chosen[0].content, rejected[0].content]).toEqual(["good", "bad"]);
  }
  expect(scored).toEqual(["m", "m"]);
  expect(report.figures["judge/accuracy"]).toMatchObject({
    ...{ before: { mean: 0.5 }, after: { mean: 1 } },
  });
  expect(report).toMatchObject({ outcome: "learnt", policy: "m@1" });
  expect(report.notes.join(" ")).toMatch(/10 pairs are ties/);
  const first = await readFile(join(out, "judge.json"), "utf8");
  expect(await trainJudge(given)).toEqual(report);
  expect(state.learnt).toBe(1);
  expect(await readFile(join(out, "judge.json"), "utf8")).toBe(first);
});

it("a run that was begun goes on with its prompt, its data and its batches, or is refused by their name", async () => {
  const { state, types, out, hone } = await learningServer();
  const given = {
    ...{ mode: "pairwise" as const, method: "sft" as const, data: pairs, name: "m", hone, out },
    batchSize: 40,
  };
  state.failing = true;
  await expect(trainJudge(given)).rejects.toThrow(/The worker is gone/);
  state.failing = false;
  const prompt: NonNullable<Parameters<typeof trainJudge>[0]["prompt"]> = ({ answers }) => [
    { role: "user", content: `Which is better? ${answers.join(" or ")}` },
  ];
  const other = pairs.map((one, at) =>
    at === 3 ? { ...one, output: one.output.toReversed() } : one,
  );
  for (const [changed, name] of [
    [{ prompt }, "prompt"],
    [{ batchSize: 20 }, "batchSize"],
    [{ data: other }, "data"],
  ] as const) {
    const going = trainJudge({ ...given, ...changed });
    await expect(going).rejects.toThrow(new RegExp(`The run in .* has ${name} `));
    await expect(going).rejects.toMatchObject({ code: "invalid_config", param: name });
  }
  expect(types).toEqual(["sft"]);
  await trainJudge(given);
  expect(types).toEqual(["sft", "sft"]);
});

it("held-out pairs that are others of the same length are refused", async () => {
  const { types, out, hone } = await learningServer();
  const heldOut = pairs.slice(80).map((one, at) => ({
    ...one,
    input: [{ role: "user", content: `Held out ${10 + at}` }],
  }));
  const given = {
    ...{ mode: "pairwise" as const, method: "bradley-terry" as const, name: "m", hone, out },
    ...{ data: pairs.slice(0, 80), heldOut, batchSize: 80 },
  };
  await trainJudge(given);
  const others = heldOut.map((one, at) => ({
    ...one,
    input: [{ role: "user", content: `Held out ${50 + at}` }],
  }));
  await expect(trainJudge({ ...given, heldOut: others })).rejects.toMatchObject({
    ...{ code: "invalid_config", param: "heldOut" },
  });
  expect(types).toEqual(["bradley_terry"]);
});
