/** The stages that make the first policy and a reward model, on a server that is a program. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  modelInfo,
  operation,
  send,
  startRouteServer,
  type RouteServer,
} from "../../packages/client/src/testing/route-server.ts";
import { imitate } from "../../packages/recipes/src/good-teacher/imitation.ts";
import { trainRewardModel } from "../../packages/recipes/src/good-teacher/reward-model.ts";

interface Op {
  type: string;
  examples: unknown[];
  cursor: unknown;
  config: Record<string, unknown>;
}

let folder: string;
let server: RouteServer;
const file = (name: string) => join(folder, name);
const signal = new AbortController().signal;

/** Takes each step at once, fails the step of a number, and keeps its models' steps, cursors and pins. */
async function serverOn(failing: { model: string; step: number }) {
  const models = new Map<string, { learnt: number; cursor: unknown }>();
  const ops: { model: string; op: Op }[] = [];
  const pinned: string[] = [];
  const ended = new Map<string, object>();
  const of = (path: string) => path.split("/")[3] as string;
  const state = (name: string) => {
    const known = models.get(name) ?? { learnt: 0, cursor: null };
    models.set(name, known);
    return known;
  };
  server = await startRouteServer([
    [
      "(PUT /v1/models/[^/]+|GET /v1/models/[^/]+/state)",
      ({ path }, response) => {
        const { learnt, cursor } = state(of(path));
        send(response, { ...modelInfo(cursor), id: of(path), name: of(path), learnt });
      },
    ],
    [
      "POST /v1/models/[^/]+/operations",
      ({ path, body }, response) => {
        const [name, { op }] = [of(path), body as { op: Op }];
        const model = state(name);
        const id = `op_${ended.size}`;
        const fails = failing.model === name && failing.step === model.learnt;
        ops.push({ model: name, op });
        if (!fails) Object.assign(model, { learnt: model.learnt + 1, cursor: op.cursor });
        const result = {
          ...{
            type: op.type,
            trained: true,
            step: model.learnt,
            policy: `${name}@${model.learnt}`,
          },
          ...{ examples: op.examples.length, dropped: [], metrics: { loss: 0.5 } },
          ...{ checkpoint: null, warnings: [] },
        };
        const error = { message: "no", type: "server_error", code: "train_failed", param: null };
        ended.set(id, {
          ...operation(fails ? "failed" : "succeeded"),
          ...{ id, model: name, type: op.type, result: fails ? null : result },
          ...(fails && { error }),
        });
        send(response, { ...operation("queued"), id, model: name, type: op.type }, 202);
      },
    ],
    [
      "GET /v1/operations/op_\\d+/events",
      ({ path }, response) => {
        const event = { type: "ended", seq: 1, at: 1, operation: ended.get(of(path)) };
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end(`id: 1\ndata: ${JSON.stringify(event)}\n\n`);
      },
    ],
    [
      "PATCH /v1/models/[^/]+/policies/\\d+",
      ({ path }, response) => {
        const [, , , name = "", , step] = path.split("/");
        pinned.push(`${name}@${step}`);
        send(response, {
          ...{ id: `${name}@${step}`, object: "hone.policy", model: name, step: Number(step) },
          ...{ live: true, pinned: true, keptAs: [], removedAt: null, operationId: "op_0" },
          ...{ checkpoint: null, createdAt: 1 },
        });
      },
    ],
  ]);
  return { ops, pinned };
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-reward-model-"));
  const said = (content: string) => [{ role: "assistant", content }];
  const prompt = [{ role: "user", content: "Say a word." }];
  const lines = (rows: unknown[]) => rows.map((row) => JSON.stringify(row)).join("\n");
  const conversations = Array.from({ length: 4 }, (_, at) => ({
    messages: [...prompt, ...said(`word ${at}`)],
  }));
  await writeFile(file("conversations.jsonl"), lines(conversations));
  const pairs = Array.from({ length: 6 }, (_, at) => ({
    ...{ prompt, chosen: said(`good ${at}`), rejected: said(`bad ${at}`), onPolicy: at < 2 },
  }));
  await writeFile(file("pairs.jsonl"), lines(pairs));
});
afterEach(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

it("a reward model begins with the first policy's steps, goes on where it failed, and is pinned", async () => {
  const failing = { model: "rm", step: 3 };
  const { ops, pinned } = await serverOn(failing);
  const rest = { hone: server.hone(), signal, batchSize: 2, seed: 5 };
  const start = file("sft.json");
  const examples = file("conversations.jsonl");
  await imitate({ ...rest, examples, model: "first", out: start, epochs: 1, learningRate: 1e-3 });
  expect(JSON.parse(await readFile(start, "utf8"))).toMatchObject({ model: "first", step: 2 });
  const train = () =>
    trainRewardModel({
      ...{ ...rest, pairs: file("pairs.jsonl"), start, out: file("rm.json"), model: "rm" },
      ...{ epochs: 1, learningRate: 2e-3, centering: 0.02 },
    });
  await expect(train()).rejects.toMatchObject({ code: "train_failed" });
  failing.step = -1;
  expect(await train()).toBe(true);
  const [first, reward] = ["first", "rm"].map((name) =>
    ops.filter(({ model }) => model === name).map(({ op }) => op),
  ) as [Op[], Op[]];
  // The same imitation, example by example; then the pairs, of which one step was tried twice.
  expect(reward.slice(0, 2).map(({ examples: of }) => of)).toEqual(
    first.map(({ examples: of }) => of),
  );
  const types = reward.map(({ type }) => type);
  expect(types).toEqual(["sft", "sft", ...Array.from({ length: 4 }, () => "bradley_terry")]);
  expect(reward[3]?.examples).toEqual(reward[4]?.examples);
  expect(reward[5]?.config).toMatchObject({ centering: 0.02, learningRate: 2e-3 });
  expect(pinned).toEqual(expect.arrayContaining(["first@2", "rm@2", "rm@5"]));
  const made = await readFile(file("rm.json"), "utf8");
  expect(JSON.parse(made)).toEqual({
    ...{ model: "rm", policy: "rm@5", onPolicyShare: 1 / 3, pairs: 6 },
  });
  // The file is lost, and the server has done it all.
  const before = ops.length;
  await rm(file("rm.json"));
  expect(await train()).toBe(true);
  expect(await readFile(file("rm.json"), "utf8")).toBe(made);
  expect(ops).toHaveLength(before);
  // Other examples would be another first policy.
  await writeFile(file("conversations.jsonl"), "{}");
  await rm(file("rm.json"));
  await expect(train()).rejects.toThrow(/changed since .*sft\.json was made/);
});
