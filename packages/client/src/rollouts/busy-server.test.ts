import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { afterEach, expect, it } from "vitest";
import {
  gatherOne as gather,
  rolloutRoutes,
  send,
  sendError,
  startRouteServer,
  type Handler,
  type RouteServer,
} from "../testing/route-server.ts";
import type { RolloutModel } from "./rollout-model.ts";

let server: RouteServer;
afterEach(() => server.close());

async function modelWith(chat: Handler) {
  server = await startRouteServer(rolloutRoutes({ chat }).routes);
  return await server.hone({ maxRetries: 0 }).model({ name: "m" });
}

const full = { "x-should-retry": "true", "retry-after-ms": "40", "retry-after": "1" };
const answer = { id: "x", object: "chat.completion", created: 1, model: "m", choices: [] };
/** Every request takes none of the SDK's own tries. */
const rollout = async (model: RolloutModel) => {
  const { model: name, ...connection } = model.connection();
  const client = new OpenAI({ ...connection, maxRetries: 0 });
  const messages = [{ role: "user" as const, content: "?" }];
  await client.chat.completions.create({ model: name, messages });
  return 1;
};

it("a turn is sent again for as long as the engines are full, as the same request", async () => {
  const tries: (string | undefined)[] = [];
  const at: number[] = [];
  const model = await modelWith(({ headers }, response) => {
    tries.push(headers["x-stainless-retry-count"] as string | undefined);
    at.push(performance.now());
    if (tries.length < 5) sendError(response, 429, "engine_busy", "full", full);
    else send(response, answer);
  });
  const [group] = await gather(model, rollout, ["s"]);
  expect(group?.trajectories).toHaveLength(1);
  expect(tries).toEqual(["0", "1", "2", "3", "4"]);
  for (const [nth, time] of at.slice(1).entries()) expect(time - at[nth]!).toBeGreaterThan(38);
});

it("no new rollout begins while the server asks for less", async () => {
  let isFull = true;
  let refuse = (): void => undefined;
  const refused = new Promise<void>((resolve) => (refuse = resolve));
  const model = await modelWith((_, response) => {
    const asked = { ...full, "retry-after-ms": "2000" };
    if (isFull) sendError(response, 429, "engine_busy", "full", asked);
    else send(response, answer);
    isFull = false;
    refuse();
  });
  const begun: number[] = [];
  const noted = async (one: RolloutModel, scenario: number) => {
    begun.push(performance.now());
    // The second one ends while the first one waits, which has the time to hear that it shall.
    if (scenario === 1) await refused.then(() => sleep(600));
    return scenario === 1 ? 1 : await rollout(one);
  };
  await gather(model, noted, [0, 1, 2], { concurrency: 2 });
  expect(begun[2]! - begun[0]!).toBeGreaterThan(1_980);
});

it("the wait ends with the rollout's time, and the 429 of a proxy is the caller's", async () => {
  const model = await modelWith((_, response) => {
    const asked = { ...full, "retry-after-ms": "60000" };
    sendError(response, 429, "engine_busy", "full", asked);
  });
  await expect(gather(model, rollout, ["s"], { timeoutMs: 200 })).rejects.toMatchObject({
    cause: { code: "timeout" },
  });
  await server.close();
  const other = await modelWith((_, response) => sendError(response, 429, "quota", "no more"));
  const [group] = await gather(other, rollout, ["s"], { maxExceptions: 1 });
  expect(group?.exceptions[0]?.message).toContain("429 no more");
});
