import { afterEach, beforeEach, expect, it } from "vitest";
import type { RolloutModel } from "../rollouts/rollout-model.ts";
import {
  modelInfo,
  rolloutRoutes,
  send,
  startRouteServer,
  type RouteServer,
} from "../testing/route-server.ts";
import { probeTask } from "./probe.ts";
import type { Task, TaskSettings } from "./task.ts";

let server: RouteServer;
beforeEach(async () => {
  server = await startRouteServer([
    ["PUT /v1/models/probe-.*", ({ path }, response) => send(response, named(path))],
    ["GET /v1/models/probe-.*/state", ({ path }, response) => send(response, named(path))],
    [
      "DELETE /v1/models/probe-.*",
      ({ path }, response) =>
        send(response, { id: named(path).name, object: "model", deleted: true }),
    ],
    ...rolloutRoutes().routes,
  ]);
});
afterEach(() => server.close());

const named = (path: string) => ({
  ...modelInfo(),
  name: /probe-[a-z0-9]+/.exec(path)?.[0] ?? "m",
});

async function say(model: RolloutModel): Promise<void> {
  const { baseURL, apiKey, fetch } = model.connection();
  await fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${apiKey}` },
    body: JSON.stringify({ model: model.name, messages: [{ role: "user", content: "?" }] }),
  });
}

const task = (over: Partial<Task<number>> = {}): Task<number> => ({
  train: [1, 2, 3, 4],
  heldOut: [5, 6],
  async rollout(model) {
    await say(model);
    return { reward: Math.random() };
  },
  ...over,
});

const probe = (one: Task<number>, settings?: TaskSettings) =>
  probeTask(one, {
    ...{ rollouts: 16, groupSize: 4, trainStep: false, hone: server.hone({ maxRetries: 0 }) },
    settings,
  });

it("runs a failed rollout once more, as a run does", async () => {
  const begun = new Map<number, number>();
  const report = await probe(
    task({
      async rollout(model, scenario) {
        const count = (begun.get(scenario) ?? 0) + 1;
        begun.set(scenario, count);
        await say(model);
        if (count === 1) throw new TypeError("the tool was not up yet");
        return { reward: Math.random() };
      },
    }),
  );
  expect(report.figures).toMatchObject({ rollouts: 16, failed: 0 });
});

it("counts rollouts that always fail, has nothing judged, and leaves no model", async () => {
  const report = await probe(
    task({
      rollout() {
        throw new TypeError("no such tool");
      },
      score() {
        throw new Error("there is nothing to judge");
      },
    }),
  );
  expect(report.verdict).toBe("no_go");
  expect(report.reasons[0]).toContain("TypeError: no such tool");
  expect(server.seen("DELETE /v1/models/probe-")).toHaveLength(1);
});

it("warms up first, as the run does, and reckons with it", async () => {
  const said: string[] = [];
  const one = task({
    settings: { sft: 0 },
    warmUp: async (_, { settings }) => {
      said.push(`warmed up with ${settings["sft"]}`);
      return settings["sft"] !== 0;
    },
    async rollout(model) {
      said.push("played");
      await say(model);
      return { reward: Math.random() };
    },
  });
  const warm = await probe(one, { sft: 8 });
  expect(said[0]).toBe("warmed up with 8");
  expect(warm.measured.warmingUp).toBeGreaterThan(0);
  const cold = await probe(one);
  expect(cold.measured.warmingUp).toBe(0);
  // The two held-out scenarios are answered once more after it.
  expect(warm.estimate.evaluationRollouts - cold.estimate.evaluationRollouts).toBe(2);
});

it("leaves no model where it is stopped while the model is made", async () => {
  const stop = new AbortController();
  await server.close();
  server = await startRouteServer([
    [
      "PUT /v1/models/probe-.*",
      ({ path }, response) => {
        // It is made, and the answer comes too late.
        stop.abort(new Error("stopped"));
        setTimeout(() => send(response, named(path)), 50);
      },
    ],
    [
      "DELETE /v1/models/probe-.*",
      ({ path }, response) =>
        send(response, { id: named(path).name, object: "model", deleted: true }),
    ],
  ]);
  const hone = server.hone({ maxRetries: 0 });
  await expect(probeTask(task(), { hone, signal: stop.signal })).rejects.toThrow("stopped");
  expect(server.seen("DELETE /v1/models/probe-")).toHaveLength(1);
});

it("asks for no rewards where a teacher is learnt from", async () => {
  const options = {
    train: { type: "distill", teacher: "base" },
  } as unknown as Task<number>["options"];
  const one = task({
    options,
    async rollout(model, scenario) {
      await say(model);
      return { reward: null, metadata: { scenario } };
    },
  });
  const report = await probe(one);
  expect(report.verdict).toBe("go");
  expect(report.reasons.join()).toContain("teacher");
  expect((await probe({ ...one, options: {} })).verdict).toBe("change_the_reward");
});
