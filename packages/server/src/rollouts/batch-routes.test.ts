import { afterEach, beforeEach, expect, test } from "vitest";
import {
  adapterList,
  completionOf,
  fileTrainer,
  openTestState,
  temporaryFolder,
  type TestState,
} from "../operations/testing/fixtures.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let server: TestState;

beforeEach(async () => {
  folder = await temporaryFolder();
  const engine = adapterList();
  server = await openTestState(folder.path, {
    engine: () => engine,
    trainer: fileTrainer(),
    clock: () => 1_000,
  });
  await server.call("PUT", "/v1/models/m", {});
});
afterEach(async () => {
  await server.state.close();
  await folder.remove();
});

const begin = (rollouts: object[], key?: string) =>
  server.call("POST", "/v1/batch/rollouts", { rollouts }, key);
const end = (rollouts: object[], rest: object = {}) =>
  server.call("PATCH", "/v1/batch/rollouts", { rollouts, ...rest });

test("each begins by itself: one that is refused leaves the others alone", async () => {
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

test("each ends by itself, with what it left", async () => {
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

test("what is written wrongly is refused as a whole, and another key's rollouts are not there", async () => {
  await begin([{ id: "a", model: "m" }]);
  expect(await end([{ id: "a", reward: "high" }])).toMatchObject({
    status: 400,
    json: { error: { code: "invalid_reward", param: "rollouts[0].reward" } },
  });
  expect(await begin([])).toMatchObject({ status: 400 });
  expect(
    await server.call("PATCH", "/v1/batch/rollouts", { rollouts: [{ id: "a", reward: 1 }] }, "two"),
  ).toMatchObject({ json: { data: [{ error: { code: "rollout_not_found" } }] } });
});
