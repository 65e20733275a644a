import { expect } from "vitest";
import type { Reply } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

const test = stateTest
  .extend("path", async ({ server }): Promise<string> => {
    return `/v1/rollouts/${(await server.call("POST", "/v1/rollouts", { model: "m" })).json.id}`;
  })
  .extend(
    "patch",
    ({ server, path }) =>
      (body: object) =>
        server.call("PATCH", path, body),
  )
  .extend("left", ({ server, path }) => async (): Promise<Reply["json"]> => {
    return (await server.call("GET", `${path}/trajectory`)).json;
  });

const numbers = (count: number, prefix: string) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${prefix}${i}`, i]));

test("metadata is bounded over all requests, and the rollout can be ended", async ({
  patch,
  left,
}) => {
  const statuses = [];
  for (let i = 0; i < 8; i++) {
    statuses.push((await patch({ metadata: { [`k${i}`]: "x".repeat(60_000) } })).status);
  }
  expect(statuses).toEqual([200, 200, 200, 200, 400, 400, 400, 400]);
  expect(Object.keys((await left()).metadata)).toEqual(["k0", "k1", "k2", "k3"]);
  expect((await patch({ status: "finished" })).json).toMatchObject({ status: "finished" });
});

test.for<[string, object, RegExp]>([
  ["metadata", { metadata: { a: "é".repeat(140_000) } }, /262144/],
  ["metadata", { metrics: numbers(2_049, "m"), metadata: numbers(2_048, "d") }, /4096/],
  ["logs", { logs: ["x".repeat(1_100_000)] }, /1048576/],
  ["error", { error: { type: "E", message: "x".repeat(1_100_000) } }, /1048576/],
])(
  "too much of %s is refused, and changes nothing",
  async ([param, body, limit], { patch, left }) => {
    await patch({ metadata: { kept: 1 }, metrics: { kept: 1 }, logs: ["kept"] });
    const before = await left();
    const { status, json } = await patch({ reward: 1, status: "finished", ...body });
    expect({ status, param: json.error.param }).toEqual({ status: 400, param });
    expect(json.error.message).toMatch(limit);
    expect({ ...(await left()), durationMs: 0 }).toEqual({ ...before, durationMs: 0 });
    expect((await patch({ status: "failed" })).json.status).toBe("failed");
  },
);
