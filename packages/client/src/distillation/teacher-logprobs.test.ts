import type { CompletionRecord, TrajectoryGroup } from "@hone/core";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { ComparisonModel } from "../rollouts/comparison-model.ts";
import {
  putModel,
  send,
  sendError,
  startRouteServer,
  type Handler,
  type RouteServer,
} from "../testing/route-server.ts";

const completion = (rollout: string, turn: number): Partial<CompletionRecord> => ({
  ...{ id: `cmpl_${rollout}_${turn}`, object: "hone.completion", seq: turn, kind: "chat" },
  ...{ parentId: turn > 0 ? `cmpl_${rollout}_${turn - 1}` : null, splitReason: null },
  ...{ policy: "m@0", temperature: 1, topP: 1, seed: null, constrained: false },
  ...{ finishReason: "stop", choice: 0, choices: 1, delivered: true, messages: [], tools: null },
  ...{ answer: { role: "assistant", content: "x" }, promptIds: [1, 2], sampledIds: [3, 4] },
  ...{ logprobs: [-1, -1], tokens: null, createdAt: 1 },
});
const rolloutOf = (id: string) => ({
  ...{ id, object: "rollout", model: "m", mode: "train", status: "finished", group: null },
  ...{ policy: "m@0", baseURL: "http://h", reward: 1, completions: 2, leaseExpiresAt: null },
  ...{ createdAt: 1, metrics: {}, error: null, trainedBy: null, closedAt: 2 },
});
const groupsOf = (count: number) =>
  [
    { trajectories: Array.from({ length: count }, (_, at) => ({ rolloutId: `ro_${at}` })) },
  ] as unknown as TrajectoryGroup[];

let server: RouteServer;
let answer: Handler;
let [atOnce, most] = [0, 0];
beforeEach(async () => {
  [atOnce, most] = [0, 0];
  server = await startRouteServer([
    putModel,
    [
      "GET /v1/rollouts/.*/completions",
      async ({ path }, response) => {
        const id = path.split("/")[3]!;
        most = Math.max(most, ++atOnce);
        await new Promise((resolve) => setTimeout(resolve, 5));
        atOnce -= 1;
        const data = [0, 1].map((turn) => completion(id, turn));
        send(response, { object: "list", data, has_more: false, rollout: rolloutOf(id) });
      },
    ],
    ["POST /teacher/completions", (request, response) => answer(request, response)],
  ]);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await server.close();
});

const scored: Handler = ({ body }, response) =>
  send(response, {
    choices: [
      {
        prompt_logprobs: body.prompt.map((id: number, at: number) =>
          at === 0 ? null : { [id]: { logprob: -at } },
        ),
      },
    ],
  });
const teach = async (rollouts: number, options = {}) => {
  const teacher = new ComparisonModel({
    baseURL: `${server.url}/teacher`,
    apiKey: "k",
    model: "t",
  });
  const student = await server.hone({ maxRetries: 0 }).model({ name: "m" });
  return await student.teacherLogprobs(groupsOf(rollouts), teacher, options);
};

it("asks for no more at once than it may, of the student's server too", async () => {
  answer = scored;
  const found = await teach(12, { concurrency: 3 });
  expect(most).toBeLessThanOrEqual(3);
  expect(found["ro_11"]).toEqual({ cmpl_ro_11_0: [-2, -3], cmpl_ro_11_1: [-6, -7] });
  expect(server.seen("POST /teacher")).toHaveLength(12);
});

it.each([
  [400, "context_length_exceeded", "The prompt is too long."],
  [400, "400", "This model's maximum context length is 8 tokens. However, you requested 9."],
])(
  "leaves out an answer that fills the teacher's context (%s %s)",
  async (status, code, message) => {
    const warned = vi.spyOn(process, "emitWarning").mockImplementation(() => undefined);
    answer = (request, response) =>
      request.body.prompt.length + 1 > 8
        ? sendError(response, status, code, message)
        : scored(request, response);
    expect(await teach(2)).toEqual({
      ro_0: { cmpl_ro_0_0: [-2, -3] },
      ro_1: { cmpl_ro_1_0: [-2, -3] },
    });
    expect(warned.mock.calls.map(([text]) => text)).toEqual([
      expect.stringMatching(/^teacherLogprobs\(\): 2 answer\(s\) have no teacher.*context of "t"/),
    ]);
  },
);

it("asks nothing more once it has failed", async () => {
  answer = (_request, response) => sendError(response, 400, "invalid_request", "no such model");
  await expect(teach(40, { concurrency: 2 })).rejects.toThrow("no such model");
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(server.received.length).toBeLessThan(20);
});
