import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { afterEach, describe, expect, it, vi } from "vitest";
import { GatherError } from "./gather-error.ts";
import type { GatherEvent } from "./gather.ts";
import {
  gatherOne as gather,
  rolloutRoutes,
  sendError,
  startRouteServer,
  until,
} from "../testing/route-server.ts";
import type { RouteServer } from "../testing/route-server.ts";
import type { RolloutModel } from "./rollout-model.ts";

let server: RouteServer;
let rollouts: ReturnType<typeof rolloutRoutes>["rollouts"];
afterEach(() => server.close());

async function modelWith(options: Parameters<typeof rolloutRoutes>[0] = {}) {
  const made = rolloutRoutes(options);
  rollouts = made.rollouts;
  server = await startRouteServer(made.routes);
  return await server.hone({ maxRetries: 0 }).model({ name: "m" });
}

function say(model: RolloutModel, content: string, fetch = model.connection().fetch) {
  const { baseURL, apiKey } = model.connection();
  return fetch(`${baseURL}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${apiKey}` },
    body: JSON.stringify({ model: model.name, messages: [{ role: "user", content }] }),
  });
}

describe("gather", () => {
  it("makes one group of each scenario, in order", async () => {
    const model = await modelWith();
    const rollout = async (m: RolloutModel, n: number) => {
      await (await say(m, String(n))).json();
      return { reward: n, metrics: { twice: 2 * n }, metadata: { kind: "x" }, logs: ["l"] };
    };
    const groups = await gather(model, rollout, [1, 2, 3], { groupSize: 2, concurrency: 4 });
    expect(groups.map((g) => g.scenario)).toEqual([1, 2, 3]);
    expect(groups[1]?.trajectories.map((t) => [t.reward, t.metrics, t.logs])).toEqual(
      Array.from({ length: 2 }, () => [2, { twice: 4 }, ["l"]]),
    );
    const all = [...rollouts.values()];
    expect(new Set(all.map((r) => r.group)).size).toBe(3);
    expect(all.every((r) => r.status === "finished" && r.mode === "train")).toBe(true);
  });

  it("pins an older policy and marks evaluations", async () => {
    const model = await modelWith();
    await gather(model.at(3), () => 1, ["a"], { mode: "eval" });
    expect(server.seen("POST /v1/batch/rollouts")[0]?.body.rollouts).toMatchObject([
      { model: "m", step: 3, mode: "eval", scenario: "a" },
    ]);
  });

  it("runs no more at once than concurrency", async () => {
    const model = await modelWith();
    let running = 0;
    let most = 0;
    let fill = (): void => undefined;
    const full = new Promise<void>((resolve) => (fill = resolve));
    const rollout = async () => {
      most = Math.max(most, (running += 1));
      if (running === 3) fill();
      // None ends before as many run as may, however slow the machine; a fourth would show.
      await full;
      await sleep(20);
      running -= 1;
      return 0;
    };
    await gather(model, rollout, [1, 2, 3], { groupSize: 4, concurrency: 3 });
    expect(most).toBe(3);
  });

  it("keeps what succeeded, and the failures as exceptions", async () => {
    const model = await modelWith();
    const rollout = (_: RolloutModel, n: number) => {
      if (n === 2) throw new TypeError("no two");
      return n;
    };
    const groups = await gather(model, rollout, [1, 2, 3], { maxExceptions: 0.4 });
    expect(groups.map((g) => g.trajectories.length)).toEqual([1, 0, 1]);
    expect(groups[1]?.exceptions[0]).toMatchObject({
      ...{ type: "TypeError", message: "no two" },
      stack: expect.stringMatching(/^TypeError: no two\n +at .*gather\.test\.ts/),
    });
    const failed = [...rollouts.values()].find((r) => r.status === "failed") as any;
    expect(failed.error).toEqual({ type: "TypeError", message: "no two" });
  });

  it("keeps the stacks of the causes too, and says what was thrown that is no error", async () => {
    const model = await modelWith();
    const rollout = (_: RolloutModel, n: number) => {
      if (n === 1) throw new Error("outer", { cause: new RangeError("inner") });
      throw { status: n };
    };
    const groups = await gather(model, rollout, [1, 2], { maxExceptions: 2 });
    const [first, second] = groups.flatMap(({ exceptions }) => exceptions);
    expect(first?.stack).toMatch(/^Error: outer\n +at .*\n\[cause\]: RangeError: inner\n +at /s);
    expect(second).toMatchObject({ type: "object", message: "{ status: 2 }" });
    expect(second && "stack" in second).toBe(false);
  });

  it("ends when more fail than maxExceptions, the others marked failed", async () => {
    const model = await modelWith();
    const signals: AbortSignal[] = [];
    let begun = (): void => undefined;
    const allBegun = new Promise<void>((resolve) => (begun = resolve));
    const rollout = async (m: RolloutModel, n: number) => {
      if (signals.push(m.signal) === 3) begun();
      // Requests made at once need not arrive in their order.
      await allBegun;
      if (n === 0) throw new Error("first");
      await new Promise(() => {});
      return 1;
    };
    await expect(gather(model, rollout, [1, 2, 0], {})).rejects.toMatchObject({
      code: "too_many_exceptions",
      message: expect.stringContaining("first"),
    });
    expect(signals.every((signal) => signal.aborted)).toBe(true);
    expect([...rollouts.values()].map((r) => r.status)).toEqual(["failed", "failed", "failed"]);
  });

  it("hands out what had succeeded when too many failed", async () => {
    const model = await modelWith();
    const failure = await gather(
      model,
      (_, n: number) => {
        if (n === 2) throw new Error("no two");
        return n;
      },
      [1, 2, 3],
      { concurrency: 1 },
    ).catch((error: unknown) => error);
    if (!(failure instanceof GatherError)) throw failure;
    expect(failure.code).toBe("too_many_exceptions");
    expect(failure.message).toContain("1 of 3 rollouts failed and maxExceptions allows 0");
    expect(failure.groups.map(({ scenario }) => scenario)).toEqual([1, 2, 3]);
    expect(failure.groups.map((g) => g.trajectories.map((t) => t.reward))).toEqual([[1], [], []]);
    expect(failure.groups[1]?.exceptions).toMatchObject([{ message: "no two" }]);
    // What Node prints of an uncaught one: the agent's own stack, and not pages of groups before it.
    const shown = inspect(failure);
    expect(shown).toMatch(/\[cause\]: Error: no two\n +at .*gather\.test\.ts/);
    expect(shown).not.toContain("trajectories");
  });

  it.each([
    [undefined, /reward undefined/],
    [Number.NaN, /reward NaN/],
    [{ reward: 1, metrics: { x: Number.POSITIVE_INFINITY } }, /metrics.x = Infinity/],
    [{ reward: 1, score: 2 }, /unknown key "score"/],
    [{ metrics: {} }, /reward undefined/],
  ])("refuses %o as an outcome", async (outcome, message) => {
    const model = await modelWith();
    const [group] = await gather(model, () => outcome as number, [1], {
      maxExceptions: 1,
      retries: 3,
    });
    expect(group?.exceptions[0]).toMatchObject({ type: "invalid_reward" });
    expect(group?.exceptions[0]?.message).toMatch(message);
    expect(rollouts.size).toBe(1);
  });

  it("takes null for a reward that is not there yet", async () => {
    const model = await modelWith();
    const [group] = await gather(model, () => null, [1]);
    expect(group?.trajectories[0]?.reward).toBeNull();
  });

  it("runs a failed rollout again as a new one", async () => {
    const model = await modelWith();
    const events: GatherEvent[] = [];
    let runs = 0;
    const rollout = () => {
      runs += 1;
      if (runs < 3) throw new Error("not yet");
      return 1;
    };
    const [group] = await gather(model, rollout, [1], {
      retries: 2,
      onProgress: (event) => events.push(event),
    });
    expect(group?.exceptions).toEqual([]);
    expect(rollouts.size).toBe(3);
    expect(events.map((e) => e.type)).toEqual([
      "rollout-retried",
      "rollout-retried",
      "rollout-finished",
    ]);
    expect(events.at(-1)).toMatchObject({ done: 1, failed: 0, total: 1 });
  });

  it("throws at once what no rollout survives", async () => {
    const { routes } = rolloutRoutes();
    server = await startRouteServer([
      ["POST /v1/batch/rollouts", (_, r) => sendError(r, 401, "invalid_api_key")],
      ...routes,
    ]);
    const model = await server.hone().model({ name: "m" });
    await expect(
      gather(model, () => 1, [1, 2], { maxExceptions: 0.9, concurrency: 1 }),
    ).rejects.toMatchObject({ code: "invalid_api_key" });
    expect(server.seen("POST /v1/batch/rollouts")).toHaveLength(1);
  });

  it("refuses unknown options by name", async () => {
    const model = await modelWith();
    const options = { group_size: 2 } as object;
    await expect(gather(model, () => 1, [1], options)).rejects.toMatchObject({
      param: "group_size",
    });
  });
});

/** The clock of timers stands still but for what the test adds to it. */
function stopClock(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
}

describe("time and aborts", () => {
  afterEach(() => void vi.useRealTimers());

  it("ends a rollout past its time and names the call it was in", async () => {
    let calls = 0;
    const model = await modelWith({
      chat: (_, response) => {
        calls += 1;
        if (calls < 3) response.end("{}");
      },
    });
    const rollout = async (m: RolloutModel) => {
      for (;;) await (await say(m, "x")).text();
    };
    stopClock();
    const gathering = gather(model, rollout, [1], { timeoutMs: 300, maxExceptions: 1 });
    await until(() => calls === 3);
    vi.advanceTimersByTime(300);
    const [group] = await gathering;
    expect(group?.exceptions[0]).toMatchObject({ type: "timeout", duringCall: 3 });
    expect(group?.exceptions[0]?.message).toContain("model call 3");
    expect([...rollouts.values()][0]?.status).toBe("failed");
  });

  it("asks the server for the call when the agent has a fetch of its own", async () => {
    const model = await modelWith();
    let answered = false;
    const rollout = async (m: RolloutModel) => {
      await (await say(m, "x", globalThis.fetch)).text();
      answered = true;
      await new Promise(() => {});
      return 1;
    };
    stopClock();
    const gathering = gather(model, rollout, [1], { timeoutMs: 300, maxExceptions: 1 });
    await until(() => answered);
    vi.advanceTimersByTime(300);
    const [group] = await gathering;
    expect(group?.exceptions[0]).toMatchObject({ type: "timeout", duringCall: 2 });
  });

  it("marks its rollouts failed when the caller aborts", async () => {
    const model = await modelWith({ chat: () => {} });
    const controller = new AbortController();
    const running = gather(model, async (m) => (await say(m, "x")) && 1, [1, 2, 3], {
      signal: controller.signal,
      concurrency: 2,
    });
    await expect.poll(() => [...rollouts.values()].flatMap((r) => r.calls).length).toBe(2);
    controller.abort();
    await expect(running).rejects.toMatchObject({ code: "aborted" });
    expect([...rollouts.values()].map((r) => r.status)).toEqual(["failed", "failed"]);
  });

  it("gives a signal that any number of calls may listen to", async () => {
    const model = await modelWith();
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on("warning", onWarning);
    try {
      const rollout = async (m: RolloutModel) => {
        for (let i = 0; i < 20; i += 1) m.signal.addEventListener("abort", () => i);
        return await sleep(20, 1);
      };
      await gather(model, rollout, [1]);
      expect(warnings.filter(({ name }) => name !== "HoneWarning")).toEqual([]);
    } finally {
      process.off("warning", onWarning);
    }
  });

  it("renews the lease of a rollout that is silent", async () => {
    const model = await modelWith({ leaseMs: 300 });
    const renewals = () =>
      server.seen("PATCH /v1/rollouts").filter((r) => Object.keys(r.body).length === 0);
    let begun = false;
    let end: (reward: number) => void = () => undefined;
    const silent = new Promise<number>((resolve) => (end = resolve));
    stopClock();
    const gathering = gather(model, () => ((begun = true), silent), [1]);
    await until(() => begun);
    vi.advanceTimersByTime(300);
    await until(() => renewals().length === 3);
    end(1);
    await gathering;
    vi.advanceTimersByTime(3_000);
    // The rollout is over, and with it the renewals.
    await model.info();
    expect(renewals()).toHaveLength(3);
  });
});
