import { expect } from "vitest";
import { completionOf, type Reply } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest
  .extend("options", { clock: () => 1_000 })
  .extend("begin", ({ server }) => (rollouts: unknown[], key?: string): Promise<Reply> => {
    return server.call("POST", "/v1/batch/rollouts", { rollouts }, key);
  })
  .extend("end", ({ server }) => (rollouts: object[], rest: object = {}): Promise<Reply> => {
    return server.call("PATCH", "/v1/batch/rollouts", { rollouts, ...rest });
  });

test("each begins by itself: one that is refused leaves the others alone", async ({ begin }) => {
  const bodies = [
    { id: "a", model: "m", scenario: 1 },
    { id: "b", model: "nobody" },
    { id: "c", model: "m", group: "g" },
  ];
  const first = await begin(bodies);
  expect(first).toMatchObject({
    status: 200,
    json: {
      data: [
        { rollout: { id: "a", status: "open" }, trajectory: null, error: null },
        { rollout: null, error: { code: "model_not_found" } },
        { rollout: { id: "c", group: "g" } },
      ],
    },
  });
  // An answer that was lost: the same request makes nothing new.
  expect((await begin(bodies)).json).toEqual(first.json);
  expect((await begin([{ ...bodies[0], scenario: 2 }])).json.data[0].error.code).toBe(
    "rollout_exists",
  );
});

test("each ends by itself, with what it left", async ({ server, begin, end }) => {
  await begin(["a", "b", "c"].map((id) => ({ id, model: "m" })));
  await server.state.ledger.append([completionOf("a"), completionOf("c")]);
  await server.call("PATCH", "/v1/rollouts/b", { status: "failed" });
  const ends = ["a", "b", "none", "c"].map((id, at) => ({ id, status: "finished", reward: at }));
  const answer = await end(ends, { trajectories: true });
  expect(answer.json.data).toMatchObject([
    { rollout: { status: "finished", reward: 0 }, trajectory: { rolloutId: "a", reward: 0 } },
    { rollout: null, trajectory: null, error: { code: "rollout_closed" } },
    { rollout: null, trajectory: null, error: { code: "rollout_not_found" } },
    { rollout: { status: "finished", reward: 3 }, trajectory: { rolloutId: "c", reward: 3 } },
  ]);
  const alone = await server.call("GET", "/v1/rollouts/a/trajectory");
  expect(answer.json.data[0].trajectory).toEqual(alone.json);
  expect(alone.json.messages.length).toBeGreaterThan(0);
  // Asked again, and without the trajectories.
  expect((await end(ends.slice(0, 1))).json.data).toMatchObject([
    { rollout: { status: "finished" }, trajectory: null, error: null },
  ]);
});

test("one that is written wrongly is refused in its place, and the others live", async ({
  begin,
  end,
}) => {
  const begun = await begin([
    { id: "a", model: "m" },
    { id: "b", model: "m", group: "no spaces" },
    { id: "c", model: "m", colour: 1 },
    "d",
  ]);
  expect(begun).toMatchObject({
    status: 200,
    json: {
      data: [
        { rollout: { id: "a" }, error: null },
        { rollout: null, error: { code: "invalid_request", param: "rollouts[1].group" } },
        { rollout: null, error: { code: "unsupported_parameter", param: "rollouts[2].colour" } },
        { rollout: null, error: { code: "invalid_request", param: "rollouts[3]" } },
      ],
    },
  });
  const ended = await end([
    { id: "a", status: "finished", reward: 1 },
    { id: "a", reward: "high" },
  ]);
  expect(ended).toMatchObject({
    status: 200,
    json: {
      data: [
        { rollout: { status: "finished", reward: 1 }, error: null },
        { rollout: null, error: { code: "invalid_reward", param: "rollouts[1].reward" } },
      ],
    },
  });
});

test("a bulk request that is wrong as a whole is refused as a whole", async ({ begin, end }) => {
  expect(await begin([])).toMatchObject({ status: 400, json: { error: { param: "rollouts" } } });
  expect(await begin(Array.from({ length: 257 }, () => ({ model: "m" })))).toMatchObject({
    status: 400,
    json: { error: { param: "rollouts" } },
  });
  expect(await end([{ id: "a" }], { others: 1 })).toMatchObject({
    status: 400,
    json: { error: { code: "unsupported_parameter", param: "others" } },
  });
});

test("another key's rollouts are not there", async ({ server, begin }) => {
  await begin([{ id: "a", model: "m" }]);
  expect(
    await server.call("PATCH", "/v1/batch/rollouts", { rollouts: [{ id: "a", reward: 1 }] }, "two"),
  ).toMatchObject({ json: { data: [{ error: { code: "rollout_not_found" } }] } });
});
