import { ServerWait, Transport, type Fetch } from "@hone/transport";
import OpenAI from "openai";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { Model } from "../model.ts";
import {
  rolloutRoutes,
  send,
  sendError,
  startRouteServer,
  type Handler,
} from "../testing/route-server.ts";
import { playUncut } from "./away-server.ts";
import type { GatherEvent } from "./gather.ts";
import { gather } from "./gather.ts";
import { CallCounter } from "./rollout-context.ts";
import type { RolloutEnd } from "./rollout-end.ts";
import type { RolloutModel } from "./rollout-model.ts";
import type { Rollout } from "./rollout-run.ts";

const answer = { id: "x", object: "chat.completion", created: 1, model: "m", choices: [] };

type Routes = ReturnType<typeof rolloutRoutes>;
let server: Awaited<ReturnType<typeof startRouteServer>>;
let kept: Routes["rollouts"];
let wait: ServerWait;
let model: Model;
let back: Promise<void> | undefined;
/** Has the server go away at its next chat request, which gets no answer. */
let goes: boolean;
/** How another model of the server answers. */
let aside: Handler;
let outages: number;
beforeEach(async () => {
  back = undefined;
  goes = false;
  aside = (_, response) => send(response, answer);
  outages = 0;
  const { rollouts, routes } = rolloutRoutes({
    chat: ({ path, body }, response) => {
      if (!goes) {
        rollouts.get(path.split("/")[3] as string)!.completions += body.n ?? 1;
        return send(response, answer);
      }
      goes = false;
      leave();
    },
  });
  kept = rollouts;
  server = await startRouteServer([
    ["POST /v1/chat/completions", (request, response) => aside(request, response)],
    [
      "POST /v1/rollouts/[^/]+/v1/messages/count_tokens",
      (_, response) => send(response, { input_tokens: 1 }),
    ],
    ["GET /health", (_, response) => send(response, { status: "ok" })],
    ...routes,
  ]);
  const settings = {
    ...{ serverURL: server.url, apiKey: "the-key", maxRetries: 0, timeoutMs: 60_000 },
    fetch: ((input, init) => globalThis.fetch(input, init)) as Fetch,
  };
  const { signal } = new AbortController();
  wait = new ServerWait(settings, { limitMs: 60_000, tell: () => {}, signal });
  model = new Model(new Transport(settings, wait), "m", 0);
});
afterEach(async () => {
  await back;
  await server.close();
});

/** It comes back once that has been noticed. */
function leave(): void {
  outages += 1;
  const now = outages;
  back = server.away(() => wait.outages === now);
}

const call = async (one: RolloutModel, more: { n?: number } = {}, to = one.connection()) => {
  const { model: name, ...connection } = to;
  const client = new OpenAI({ ...connection, maxRetries: 0 });
  const messages = [{ role: "user" as const, content: "?" }];
  await client.chat.completions.create({ model: name, messages, ...more });
};

const viaFetch = (one: RolloutModel) => ({
  ...{ baseURL: `${server.url}/v1`, apiKey: "the-key" },
  ...{ model: "judge", fetch: one.fetch },
});

/** Gathers from a model that waits for its server, and allows no failure. */
async function gatherWaiting(rollout: Rollout<string>, scenarios: string[], more = {}) {
  const events: GatherEvent[] = [];
  const onProgress = (event: GatherEvent) => void events.push(event);
  const groups = await gather(model, rollout, scenarios, { groupSize: 1, onProgress, ...more });
  return { trajectories: groups.flatMap((group) => group.trajectories), events };
}

describe("while the server is away", () => {
  it("rollouts are cut off, played again as they were, and counted once", async () => {
    const attempts: string[] = [];
    const rollout: Rollout<string> = async (one, scenario, { attempt }) => {
      attempts.push(`${scenario}${attempt}`);
      goes = scenario === "b" && outages === 0;
      await call(one);
      return { reward: 1 };
    };
    const { trajectories, events } = await gatherWaiting(rollout, ["a", "b", "c"], {
      concurrency: 1,
    });
    expect(attempts).toEqual(["a0", "b0", "b0", "c0"]);
    expect(trajectories.map(({ reward }) => reward)).toEqual([1, 1, 1]);
    expect(events.map(({ type, done, failed }) => [type, done, failed])).toEqual(
      [1, 2, 3].map((done) => ["rollout-finished", done, 0]),
    );
    // What was cut off is ended on the server, and keeps no policy there.
    expect([...kept.values()].map(({ status }) => status)).toEqual([
      ...["finished", "failed", "finished", "finished"],
    ]);
  });

  it("an agent that takes a lost call for an answer rewards nothing", async () => {
    let played = 0;
    const rollout: Rollout<string> = async (one) => {
      played += 1;
      goes = outages === 0;
      const reward = await call(one).then(
        () => 1,
        () => 0,
      );
      return { reward };
    };
    const { trajectories } = await gatherWaiting(rollout, ["a"]);
    expect([played, trajectories[0]?.reward]).toEqual([2, 1]);
  });

  it("a lost call is what notices it, also if it is back before the rollout ends", async () => {
    let played = 0;
    const { trajectories } = await gatherWaiting(
      async (one) => {
        played += 1;
        await call(one);
        goes = outages === 0;
        const lost = await call(one).then(
          () => false,
          () => true,
        );
        await back;
        return { reward: lost ? 0 : 1 };
      },
      ["a"],
    );
    expect([played, trajectories[0]?.reward, wait.outages]).toEqual([2, 1, 1]);
  });

  it.each([
    ["one answer", {}],
    ["one choice of two", { n: 2 }],
  ])("a rollout of which it lost %s is played again", async (_, more) => {
    let played = 0;
    const { trajectories } = await gatherWaiting(
      async (one) => {
        played += 1;
        await call(one, more);
        await call(one);
        if (outages === 0) {
          kept.get(one.rolloutId)!.completions -= 1;
          leave();
        }
        return { reward: 1 };
      },
      ["a"],
    );
    expect([played, trajectories.length]).toEqual([2, 1]);
  });

  it("a call that counts tokens has no answer that it could lose", async () => {
    let played = 0;
    const { trajectories } = await gatherWaiting(
      async (one) => {
        played += 1;
        await call(one);
        const { baseURL, fetch } = one.connection();
        const body = JSON.stringify({ model: one.name, messages: [] });
        await fetch(`${baseURL}/messages/count_tokens`, { method: "POST", body });
        leave();
        return { reward: 1 };
      },
      ["a"],
    );
    expect([played, trajectories.length, wait.outages]).toEqual([1, 1, 1]);
  });

  const lost: Handler = () => leave();
  const refused: Handler = (_, response) => sendError(response, 400, "invalid_request");
  it.each([
    ["lost, by model.at", lost, (one: RolloutModel) => one.at("judge")],
    ["refused, by model.at", refused, (one: RolloutModel) => one.at("judge")],
    ["lost, by model.fetch", lost, viaFetch],
    ["refused, by model.fetch", refused, viaFetch],
  ])("a call to another model is %s: the rollout is played again", async (_, handler, to) => {
    let played = 0;
    const { trajectories } = await gatherWaiting(
      async (one) => {
        played += 1;
        await call(one);
        if (outages === 0) aside = handler;
        else aside = (_request, response) => send(response, answer);
        await call(one, {}, to(one)).catch(() => {});
        // After a refusal only the rollout's end meets the absence.
        if (outages === 0) leave();
        return { reward: 1 };
      },
      ["a"],
    );
    expect([played, trajectories.length]).toEqual([2, 1]);
  });

  it("a rollout that does not need it is played once", async () => {
    const played: string[] = [];
    const rollout: Rollout<string> = async (one, scenario) => {
      played.push(scenario);
      if (scenario === "silent") return { reward: 1 };
      await call(one);
      leave();
      return { reward: 1 };
    };
    // It is over when the server goes away, and only its end waits.
    const over = await gatherWaiting(rollout, ["over"]);
    expect([over.trajectories.length, wait.outages]).toEqual([1, 1]);
    await back;
    // It begins when the server is back: nobody sees what its agent calls.
    leave();
    const silent = await gatherWaiting(rollout, ["silent"]);
    expect([silent.trajectories.length, wait.outages]).toEqual([1, 2]);
    expect(played).toEqual(["over", "silent"]);
  });
});

it("a rollout that fails while the server is there counts as failed", async () => {
  let played = 0;
  const rollout: Rollout<string> = () => {
    played += 1;
    throw new Error("own fault");
  };
  await expect(gatherWaiting(rollout, ["a"])).rejects.toMatchObject({
    code: "too_many_exceptions",
    message: expect.stringContaining("own fault"),
  });
  expect(played).toBe(1);
});

/** A wait on a server whose answers `health` gives; null where nobody answers. */
function waitOn(health: () => Response | null) {
  const { signal } = new AbortController();
  const fetch: Fetch = async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const given = health();
    if (!given) throw new TypeError("fetch failed");
    return given;
  };
  const settings = { serverURL: "http://hone", apiKey: "k", fetch, maxRetries: 0, timeoutMs: 1000 };
  return { signal, one: new ServerWait(settings, { limitMs: 60_000, tell: () => {}, signal }) };
}

it("a rollout that ends the server each time counts as failed, while others end well", async () => {
  let away = false;
  const { signal, one } = waitOn(() => {
    const there = !away;
    away = false;
    return there ? Response.json({}) : null;
  });
  let played = 0;
  const end = await playUncut(one, signal, async () => {
    played += 1;
    away = true;
    await one.untilThere();
    one.progressed();
    const trajectory = { rolloutId: "ro", reward: 0, usage: { completions: 0 } };
    return { trajectory, calls: new CallCounter(), outages: one.outages - 1 } as RolloutEnd;
  });
  expect(played).toBe(4);
  expect(end.exception).toMatchObject({ type: "connection_failed", rolloutId: "ro" });
});

it("many that fail at once are no leak of listeners", async () => {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  const { signal, one } = waitOn(() => Response.json({}));
  const failed = { exception: { message: "no" }, error: null } as unknown as RolloutEnd;
  await Promise.all(Array.from({ length: 24 }, () => playUncut(one, signal, async () => failed)));
  expect(emit).not.toHaveBeenCalled();
});
