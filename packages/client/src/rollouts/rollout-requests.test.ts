import { afterEach, describe, expect, it } from "vitest";
import {
  gatherOne as gather,
  rolloutRoutes,
  sendError,
  sendItems,
  startRouteServer,
  until,
  type Handler,
  type RouteServer,
} from "../testing/route-server.ts";

let server: RouteServer;
afterEach(() => server.close());

const begins = "POST /v1/batch/rollouts";
const ends = "PATCH /v1/batch/rollouts";

/** Whether it has refused a request for what it holds. */
type Refusal = (...given: Parameters<Handler>) => boolean;

function refuseWhere(status: number, code: string, holds: (body: string) => boolean): Refusal {
  return ({ body }, response) => {
    const refused = holds(JSON.stringify(body));
    if (refused) sendError(response, status, code);
    return refused;
  };
}

/** What the routes give to the first requests, in order; `null` leaves it to the rollouts' own. */
async function modelBehind(path: string, answers: (Handler | null)[], refuses?: Refusal) {
  const { rollouts, routes } = rolloutRoutes();
  const own = routes.find(([pattern]) => pattern === path)?.[1];
  server = await startRouteServer([
    [
      path,
      (request, response) => {
        const answer = answers.shift() ?? own;
        if (!refuses?.(request, response)) answer?.(request, response);
      },
    ],
    ...routes,
  ]);
  return { rollouts, model: await server.hone({ maxRetries: 1 }).model({ name: "m" }) };
}

const scenarios = Array.from({ length: 300 }, (_, n) => n);
const sizes = (path: string) => server.seen(path).map(({ body }) => body.rollouts.length);
const sum = (numbers: readonly number[]) => numbers.reduce((all, n) => all + n, 0);

describe("beginnings and ends", () => {
  it("go together where they come together", async () => {
    const { model, rollouts } = await modelBehind(begins, []);
    let running = 0;
    let open = (): void => undefined;
    const all = new Promise<void>((resolve) => (open = resolve));
    const groups = await gather(
      model,
      async (_, n: number) => {
        if ((running += 1) === scenarios.length) open();
        await all;
        return n;
      },
      scenarios,
      { concurrency: scenarios.length },
    );
    expect(groups.map((group) => group.trajectories[0]?.reward)).toEqual(scenarios);
    expect(rollouts.size).toBe(scenarios.length);
    expect(sizes(begins)).toEqual([256, 44]);
    expect(sum(sizes(ends))).toBe(scenarios.length);
    expect(sizes(ends).length).toBeLessThan(10);
  });

  it("wait for nothing where one comes alone", async () => {
    const { model } = await modelBehind(begins, []);
    await gather(model, () => 1, [1, 2], { concurrency: 1 });
    expect(server.received.slice(1).map(({ method, path }) => `${method} ${path}`)).toEqual([
      ...[begins, ends],
      ...[begins, ends],
    ]);
  });

  it("go in halves where together they are too large", async () => {
    const tooLarge: Handler = (_, response) => sendError(response, 413, "body_too_large");
    const { model } = await modelBehind(begins, [tooLarge, null, tooLarge]);
    const groups = await gather(model, (_, n: number) => n, [0, 1, 2, 3], {});
    expect(groups.map((group) => group.trajectories[0]?.reward)).toEqual([0, 1, 2, 3]);
    expect(sizes(begins)).toEqual([4, 2, 2, 1, 1]);
  });

  it("one that is too large fails alone, and those that came with it are ended", async () => {
    const tooLarge = refuseWhere(413, "body_too_large", (body) => body.length > 1_000);
    const { model, rollouts } = await modelBehind(ends, [], tooLarge);
    const groups = await gather(
      model,
      (_, n: number) => ({ reward: n, logs: n === 2 ? ["x".repeat(1_000)] : [] }),
      [0, 1, 2, 3],
      { maxExceptions: 1 },
    );
    expect(groups.map((group) => group.trajectories[0]?.reward)).toEqual([0, 1, undefined, 3]);
    expect(groups[2]?.exceptions).toMatchObject([{ type: "body_too_large" }]);
    expect([...rollouts.values()].map(({ status }) => status)).toEqual([
      "finished",
      "finished",
      "failed",
      "finished",
    ]);
  });

  it("one that the server cannot read fails alone at its beginning too", async () => {
    const unread = refuseWhere(400, "invalid_json", (body) => body.includes("nested"));
    const { model } = await modelBehind(begins, [], unread);
    const groups = await gather(model, (_, { n }) => n, [{ n: 0 }, { n: 1, nested: 1 }, { n: 2 }], {
      maxExceptions: 1,
    });
    expect(groups.map((group) => group.trajectories[0]?.reward)).toEqual([0, undefined, 2]);
    expect(groups[1]?.exceptions).toMatchObject([{ type: "invalid_json" }]);
  });

  it("one that JSON cannot hold fails alone, and is not taken for a lost connection", async () => {
    const { model } = await modelBehind(begins, []);
    const circle: { n: number; self?: unknown } = { n: 1 };
    circle.self = circle;
    const given = [{ n: 0 }, circle, { n: 2, big: 2n }, { n: 3 }];
    const groups = await gather(model, (_, { n }) => n, given, { maxExceptions: 2 });
    expect(groups.map((group) => group.trajectories[0]?.reward ?? null)).toEqual([
      0,
      null,
      null,
      3,
    ]);
    expect(groups[1]?.exceptions[0]).toMatchObject({
      type: "invalid_request",
      message: expect.stringContaining("what JSON cannot hold"),
    });
  });

  it("halves that had their answer keep it when the connection breaks in the next", async () => {
    const { model } = await modelBehind(ends, [
      (_, response) => sendError(response, 413, "body_too_large"),
      null,
      (_, response) =>
        sendError(response, 503, "shutting_down", "no", { "x-should-retry": "false" }),
    ]);
    const groups = await gather(model, (_, n: number) => n, [0, 1, 2, 3], { maxExceptions: 2 });
    expect(groups.map((group) => group.trajectories[0]?.reward)).toEqual([
      0,
      1,
      undefined,
      undefined,
    ]);
  });

  it.each([begins, ends])("%s: one that failed in passing goes again by itself", async (path) => {
    const passing: Handler = ({ body }, response) =>
      sendItems(
        response,
        body.rollouts.map(() => ({
          error: { message: "no room", type: "t", code: "too_many_requests", param: null },
        })),
      );
    const { model } = await modelBehind(path, [passing]);
    const [group] = await gather(model, () => 1, [1], {});
    expect(group?.trajectories).toHaveLength(1);
  });

  it("one that is refused is its own failure", async () => {
    const gone: Handler = ({ body }, response) =>
      sendItems(
        response,
        body.rollouts.map(() => ({
          error: { message: "it expired", type: "t", code: "rollout_closed", param: null },
        })),
      );
    const { model, rollouts } = await modelBehind(ends, [gone]);
    const [first, second] = await gather(model, (_, n: number) => n, [1, 2], {
      concurrency: 1,
      maxExceptions: 1,
    });
    expect(first?.exceptions).toMatchObject([{ type: "rollout_closed", message: "it expired" }]);
    expect(second?.trajectories[0]?.reward).toBe(2);
    expect([...rollouts.values()].map(({ status }) => status)).toEqual(["failed", "finished"]);
  });

  it("an end whose answer was lost is an end", async () => {
    const { model, rollouts } = await modelBehind(ends, [
      ({ body }, response) => {
        for (const { id, ...change } of body.rollouts) Object.assign(rollouts.get(id)!, change);
        response.destroy();
      },
      ({ body }, response) =>
        sendItems(
          response,
          body.rollouts.map(() => ({
            error: { message: "closed", type: "t", code: "rollout_closed", param: null },
          })),
        ),
    ]);
    const [group] = await gather(model, () => 5, [1], {});
    expect(group?.trajectories[0]?.reward).toBe(5);
  });

  it("end with the caller's signal", async () => {
    const { model } = await modelBehind(begins, [() => undefined]);
    const controller = new AbortController();
    const gathering = gather(model, () => 1, [1, 2], { signal: controller.signal });
    await until(() => server.seen(begins).length === 1);
    controller.abort();
    await expect(gathering).rejects.toMatchObject({ code: "aborted" });
  });
});
