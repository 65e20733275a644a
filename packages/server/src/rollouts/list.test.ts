import { completionListSchema, operationListSchema, rolloutListSchema } from "@hone/core";
import { expect } from "vitest";
import { completionOf, ended } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const away = () => new Error("away");

const test = stateTest
  .extend("renderer", () => ({ down: false }))
  .extend("options", ({ renderer }) => ({
    renderer: {
      info: () => Promise.reject(away()),
      withTemplate: () => {
        throw away();
      },
      tokens: (wanted: readonly number[]) =>
        renderer.down
          ? Promise.reject(away())
          : Promise.resolve(wanted.map((id) => ({ token: `<${id}>`, bytes: [] }))),
    },
  }))
  /** Gives the operation's id. */
  .extend("train", ({ server }) => async (): Promise<string> => {
    return (await ended(server, await server.submitStep())).id;
  })
  .extend("ids", ({ server }) => async (path: string, key?: string): Promise<string[]> => {
    const { status, json } = await server.call("GET", path, undefined, key);
    expect(status).toBe(200);
    return json.data.map(({ id }: { id: string }) => id);
  });

test("operations, the newest first, page by page, of the key that submitted them", async ({
  server,
  train,
  ids,
}) => {
  const made = [await train(), await train(), await train()].toReversed();
  const first = operationListSchema.parse(
    (await server.call("GET", "/v1/models/m/operations?limit=2")).json,
  );
  expect(first.data.map(({ id }) => id)).toEqual(made.slice(0, 2));
  expect(first.has_more).toBe(true);
  for (const { startedAt, endedAt } of first.data)
    expect(endedAt).toBeGreaterThanOrEqual(startedAt!);
  expect(await ids(`/v1/models/m/operations?after=${made[1]}`)).toEqual(made.slice(2));
  expect(await ids("/v1/models/m/operations?type=import")).toEqual([]);
  expect(await ids("/v1/models/m/operations", "other")).toEqual([]);
  const foreign = `/v1/models/m/operations?after=${made[0]}`;
  expect((await server.call("GET", foreign, undefined, "other")).status).toBe(404);
});

test("operations without the logprobs of their results, which are read one by one", async ({
  server,
}) => {
  const data = [{ tokens: [1, 2], targets: [2, 3] }];
  const { json } = await server.submit({ type: "forward", data });
  const whole = await ended(server, json.id);
  expect(whole).toMatchObject({ status: "succeeded", result: { logprobs: [[-0.5]] } });
  const list = (await server.call("GET", "/v1/models/m/operations")).json;
  const { logprobs: _, ...rest } = whole.result;
  expect(list.data[0].result).toEqual(rest);
  expect(operationListSchema.parse(list).data[0]).toMatchObject({ id: json.id, result: rest });
});

test("rollouts by policy, operation, mode and state, of the key that made them", async ({
  server,
  train,
  ids,
}) => {
  const operation = await train();
  const { json: later } = await server.call("POST", "/v1/rollouts", { model: "m", mode: "eval" });
  const all = await ids("/v1/models/m/rollouts");
  expect(all).toHaveLength(3);
  expect(all[0]).toBe(later.id);
  expect(await ids(`/v1/models/m/rollouts?after=${all[0]}&limit=1`)).toEqual([all[1]]);
  expect((await ids(`/v1/models/m/rollouts?operation=${operation}`)).toSorted()).toEqual(
    all.slice(1).toSorted(),
  );
  expect(await ids("/v1/models/m/rollouts?step=0")).toHaveLength(2);
  expect(await ids("/v1/models/m/rollouts?mode=eval&status=open")).toEqual([later.id]);
  expect(await ids("/v1/models/m/rollouts", "other")).toEqual([]);
  const { json } = await server.call("GET", "/v1/models/m/rollouts?limit=1");
  expect(rolloutListSchema.parse(json).has_more).toBe(true);
});

test("completions with their ids, logprobs and texts, for the key that made the rollout", async ({
  server,
  renderer,
}) => {
  const { json: made } = await server.call("POST", "/v1/rollouts", { model: "m" });
  await server.state.ledger.append([completionOf(made.id)]);
  const path = `/v1/rollouts/${made.id}/completions`;
  const read = completionListSchema.parse((await server.call("GET", path)).json);
  expect(read.data[0]).toMatchObject({
    promptIds: [1, 2, 3],
    sampledIds: [4, 5],
    logprobs: [-0.5, -0.25],
    tokens: ["<4>", "<5>"],
  });
  expect(read.rollout).toMatchObject({ id: made.id, status: "open", trainedBy: null });
  renderer.down = true;
  expect((await server.call("GET", path)).json.data[0]).toMatchObject({
    sampledIds: [4, 5],
    tokens: null,
  });
  const foreign = await server.call("GET", path, undefined, "other");
  expect(foreign).toMatchObject({ status: 404, json: { error: { code: "rollout_not_found" } } });
});

test.for<[string, string]>([
  ["/v1/models/m/operations?limit=0", "limit"],
  ["/v1/models/m/rollouts?limit=101", "limit"],
  ["/v1/models/m/rollouts?colour=red", "colour"],
  ["/v1/models/m/rollouts?status=lost", "status"],
])("%s is refused by name", async ([path, param], { server }) => {
  const { status, json } = await server.call("GET", path);
  expect({ status, param: json.error.param }).toEqual({ status: 400, param });
});
