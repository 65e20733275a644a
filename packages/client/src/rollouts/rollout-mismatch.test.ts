import { setTimeout as sleep } from "node:timers/promises";
import { AsyncResource } from "node:async_hooks";
import OpenAI from "openai";
import { afterEach, describe, expect, it } from "vitest";
import { ComparisonModel } from "./comparison-model.ts";
import { gather } from "./gather.ts";
import { rolloutRoutes, send, startRouteServer } from "../testing/route-server.ts";
import type { RouteServer } from "../testing/route-server.ts";
import type { RolloutModel } from "./rollout-model.ts";

const servers: RouteServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

async function setUp() {
  const { rollouts, routes } = rolloutRoutes();
  const server = await startRouteServer([
    [
      "POST /v1/rollouts/[^/]+/v1/(completions|responses|messages)[^ ]*",
      ({ path, body }, response) => {
        (rollouts.get(path.split("/")[3] ?? "") as any).calls.push(body);
        send(response, { choices: [{ text: body.prompt ?? "" }] });
      },
    ],
    ...routes,
  ]);
  servers.push(server);
  return { rollouts, server, model: await server.hone().model({ name: "m" }) };
}

const options = { groupSize: 1, maxExceptions: 100, concurrency: 4 };

async function say(client: OpenAI, content: string): Promise<string> {
  const answer = await client.chat.completions.create({
    model: "m",
    messages: [{ role: "user", content }],
  });
  return answer.choices[0]?.message.content ?? "";
}

/** What each rollout was asked, by the scenario that it was given. */
function asked(rollouts: Map<string, any>): Record<string, string[]> {
  return Object.fromEntries(
    [...rollouts.values()].map(({ scenario, calls }) => [
      scenario,
      calls.map((call: any) => call.prompt ?? call.input ?? call.messages[0].content),
    ]),
  );
}

describe("a client that is made in one rollout and called in another", () => {
  it.each([1, 4])("is refused with both ways out, %i at once", async (concurrency) => {
    const { rollouts, server, model } = await setUp();
    let client: OpenAI | undefined;
    const agent = async (m: RolloutModel, n: number) => {
      client ??= new OpenAI(m.connection());
      // An agent that takes every failure for a bad answer: its reward must not count.
      await say(client, String(n)).catch(() => undefined);
      await sleep(5);
      return n;
    };
    const groups = await gather(model, agent, [1, 2, 3, 4], { ...options, concurrency });
    const rewards = groups.flatMap((g) => g.trajectories.map((t) => t.reward));
    expect(rewards).toHaveLength(1);
    for (const { type, message } of groups.flatMap((g) => g.exceptions)) {
      expect(type).toBe("rollout_mismatch");
      expect(message).toMatch(/new OpenAI\(model\.connection\(\)\).*`fetch: model\.fetch`/s);
    }
    const calls = server.received.filter(({ path }) => path.endsWith("completions"));
    expect(calls.map(({ body }) => body.messages[0].content)).toEqual([String(rewards[0])]);
    expect([...rollouts.values()].map((r) => r.status).sort()).toEqual([
      ...["failed", "failed", "failed", "finished"],
    ]);
  });

  it("tells the agent so in one attempt", async () => {
    const { model } = await setUp();
    let client: OpenAI | undefined;
    const errors: unknown[] = [];
    let attempts = 0;
    const agent = async (m: RolloutModel) => {
      const { fetch, ...connection } = m.connection();
      client ??= new OpenAI({
        ...connection,
        fetch: (input, init) => ((attempts += 1), fetch(input, init)),
      });
      await say(client, "x").catch((error: unknown) => errors.push(error));
      return 1;
    };
    await gather(model, agent, [1, 2], { ...options, concurrency: 1 });
    await expect.poll(() => errors).toMatchObject([{ status: 409, code: "rollout_mismatch" }]);
    expect(attempts).toBe(2);
  });

  it("may be called by the rollouts that its agent gathers", async () => {
    const { rollouts, model } = await setUp();
    const other = await servers[0]!.hone().model({ name: "m" });
    const agent = async (m: RolloutModel, name: string) => {
      const outer = new OpenAI(m.connection());
      await gather(
        other,
        async (inner, n: string) => {
          await say(new OpenAI(inner.connection()), `inner ${n}`);
          await say(outer, `outer ${n}`);
          return 1;
        },
        [`${name}1`, `${name}2`],
        { ...options, concurrency: 1 },
      );
      return 1;
    };
    const groups = await gather(model, agent, ["a", "b"], options);
    expect(groups.flatMap((g) => g.exceptions)).toEqual([]);
    expect(asked(rollouts)).toEqual({
      a: ["outer a1", "outer a2"],
      a1: ["inner a1"],
      a2: ["inner a2"],
      b: ["outer b1", "outer b2"],
      b1: ["inner b1"],
      b2: ["inner b2"],
    });
  });

  it("a queue that loses the rollout's context is refused, one that keeps it is not", async () => {
    for (const keeps of [false, true]) {
      const { rollouts, model } = await setUp();
      const jobs: (() => Promise<void>)[] = [];
      let worker: Promise<void> | undefined;
      const work = async () => {
        for (let done = 0; done < 3; await sleep(2)) {
          for (let job = jobs.shift(); job; job = jobs.shift(), done += 1) await job();
        }
      };
      const agent = async (m: RolloutModel, n: number) => {
        const client = new OpenAI({ ...m.connection(), maxRetries: 0 });
        // Begun by the first rollout, whose context it has for all the others.
        worker ??= work();
        await new Promise<void>((resolve, reject) => {
          const job = () => say(client, String(n)).then(() => resolve(), reject);
          jobs.push(keeps ? AsyncResource.bind(job) : job);
        });
        return n;
      };
      const groups = await gather(model, agent, [1, 2, 3], options);
      await worker;
      for (const [scenario, said] of Object.entries(asked(rollouts))) {
        expect(said.filter((one) => one !== scenario)).toEqual([]);
      }
      expect(groups.every((g) => g.exceptions.length === 0)).toBe(keeps);
    }
  });

  it("is refused on another API too, where `model.fetch` follows the rollout", async () => {
    const { server } = await setUp();
    const other = new ComparisonModel({ baseURL: `${server.url}/v1`, apiKey: "k", model: "m" });
    const eval4 = { ...options, mode: "eval" as const };
    let client: OpenAI | undefined;
    const agent = (following: boolean) => async (m: RolloutModel, n: number) => {
      client ??= new OpenAI({ ...m.connection(), ...(following ? { fetch: m.fetch } : {}) });
      await sleep(5 - n);
      await say(client, String(n)).catch(() => undefined);
      return n;
    };
    const shared = await gather(other, agent(false), [1, 2, 3], eval4);
    expect(shared.flatMap((g) => g.trajectories)).toHaveLength(1);
    expect(shared.flatMap((g) => g.exceptions)[1]?.type).toBe("rollout_mismatch");
    client = undefined;
    const followed = await gather(other, agent(true), [1, 2, 3], eval4);
    expect(followed.map((g) => g.trajectories[0]?.messages[0]?.content)).toEqual(["1", "2", "3"]);
  });
});

describe("model.fetch", () => {
  it.each(["/completions", "/responses", "/messages?beta=true", "/what-comes-later"])(
    "follows the rollout for POST %s",
    async (route) => {
      const { rollouts, model } = await setUp();
      let client: ((prompt: string) => Promise<unknown>) | undefined;
      const agent = async (m: RolloutModel, n: number) => {
        const { baseURL } = m.connection();
        client ??= async (prompt) =>
          await m.fetch(`${baseURL}${route}`, {
            method: "post",
            body: JSON.stringify({ model: "m", prompt }),
          });
        await sleep(5 - n);
        await client(String(n));
        return n;
      };
      await gather(model, agent, [1, 2, 3], options);
      if (route === "/what-comes-later") {
        const paths = servers[0]!.received.filter(({ path }) => path.endsWith(route));
        expect(new Set(paths.map(({ path }) => path)).size).toBe(3);
      } else expect(asked(rollouts)).toEqual({ 1: ["1"], 2: ["2"], 3: ["3"] });
    },
  );

  it("follows it for completions.create of a client made once", async () => {
    const { rollouts, model } = await setUp();
    let client: OpenAI | undefined;
    const agent = async (m: RolloutModel, n: number) => {
      client ??= new OpenAI({ ...m.connection(), fetch: m.fetch });
      await sleep(5 - n);
      await client.completions.create({ model: "m", prompt: String(n) });
      return n;
    };
    await gather(model, agent, [1, 2, 3], options);
    expect(asked(rollouts)).toEqual({ 1: ["1"], 2: ["2"], 3: ["3"] });
  });

  it.each<[string, (url: string, body: string) => [any, any?]]>([
    ["bytes", (url, body) => [url, { method: "POST", body: new TextEncoder().encode(body) }]],
    [
      "a stream",
      (url, body) => [url, { method: "POST", body: new Blob([body]).stream(), duplex: "half" }],
    ],
    ["a blob", (url, body) => [url, { method: "POST", body: new Blob([body]) }]],
    ["a URL object", (url, body) => [new URL(url), { method: "POST", body }]],
    ["a Request", (url, body) => [new Request(url, { method: "POST", body })]],
    ["doubled slashes", (url, body) => [url.replace("/v1/", "//v1//"), { method: "POST", body }]],
    ["localhost", (url, body) => [url.replace("127.0.0.1", "localhost"), { method: "POST", body }]],
  ])("takes %s", async (_, requestOf) => {
    const { rollouts, server, model } = await setUp();
    const body = (name: string) =>
      JSON.stringify({ model: name, messages: [{ role: "user", content: name }] });
    await gather(
      model,
      async (m) => {
        const url = `${server.url}/v1/chat/completions`;
        for (const fetch of [model.fetch, m.fetch, m.connection().fetch]) {
          for (const name of ["m", "judge"]) {
            const answer = await fetch(...requestOf(url, body(name)));
            expect(((await answer.json()) as any).choices[0].message.content).toBe(name);
          }
        }
        return 1;
      },
      ["s"],
      options,
    );
    expect(asked(rollouts)).toEqual({ s: ["m", "m", "m"] });
    expect(server.seen("POST /v1/chat/completions")).toHaveLength(3);
  });

  it("refuses a call that has lost its rollout and carries another's URL", async () => {
    const { rollouts, model } = await setUp();
    let client: OpenAI | undefined;
    const outside = new AsyncResource("outside");
    const errors: any[] = [];
    const agent = async (m: RolloutModel, n: number) => {
      client ??= new OpenAI({ ...m.connection(), fetch: m.fetch });
      await outside.runInAsyncScope(() => say(client!, String(n))).catch((e) => errors.push(e));
      await sleep(20);
      return n;
    };
    await gather(model, agent, [1, 2], options);
    expect(errors.map(({ code }) => code)).toEqual(["rollout_mismatch", "rollout_mismatch"]);
    expect(asked(rollouts)).toEqual({ 1: [], 2: [] });
  });

  it("gives one server's key and calls to no other, whatever their models are called", async () => {
    const one = await setUp();
    const two = await setUp();
    const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "x" }] });
    await gather(
      one.model,
      async (m) => {
        await two.model.fetch(`${two.server.url}/v1/chat/completions`, { method: "POST", body });
        // An SDK that was given the connection and another base URL.
        await m.connection().fetch(`${two.server.url}/v1/chat/completions`, {
          method: "POST",
          headers: { authorization: "Bearer the-key", "x-api-key": "the-key" },
          body,
        });
        return 1;
      },
      ["s"],
      options,
    );
    expect(asked(one.rollouts)).toEqual({ s: [] });
    const [first, second] = two.server.seen("POST /v1/chat/completions");
    expect(first?.headers.authorization).toBe("Bearer the-key");
    expect(JSON.stringify(second?.headers)).not.toContain("the-key");
  });
});

describe("a call after the rollout's end", () => {
  it("is answered 409 in one attempt, with the reason", async () => {
    const { server, model } = await setUp();
    const late: { client?: OpenAI; attempts: number } = { attempts: 0 };
    await gather(
      model,
      (m) => {
        const { fetch, ...connection } = m.connection();
        late.client = new OpenAI({
          ...connection,
          fetch: (input, init) => ((late.attempts += 1), fetch(input, init)),
        });
        return 1;
      },
      [1],
      options,
    );
    const error: any = await say(late.client!, "x").catch((e: unknown) => e);
    expect(error).toMatchObject({ status: 409, code: "rollout_closed" });
    expect(error.message).toContain("The rollout is over");
    expect(late.attempts).toBe(1);
    expect(server.received.filter(({ path }) => path.endsWith("completions"))).toEqual([]);
  });

  it("so is one that the end cuts, of a rollout that was too slow", async () => {
    const { routes } = rolloutRoutes({ chat: () => {} });
    const server = await startRouteServer(routes);
    servers.push(server);
    const model = await server.hone().model({ name: "m" });
    const errors: any[] = [];
    const agent = async (m: RolloutModel) => {
      await say(new OpenAI(m.connection()), "x").catch((e: unknown) => errors.push(e));
      return 1;
    };
    const [group] = await gather(model, agent, [1], { ...options, timeoutMs: 1_500 });
    expect(group?.exceptions[0]).toMatchObject({ type: "timeout", duringCall: 1 });
    await expect.poll(() => errors.length).toBe(1);
    expect(errors[0]).toMatchObject({ status: 409, code: "rollout_closed" });
    expect(errors[0].message).toContain("longer than its 1500 ms");
    expect(server.seen("POST /v1/rollouts")).toHaveLength(1);
  });
});
