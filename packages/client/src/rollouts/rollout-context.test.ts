import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { gatherOne as gather, rolloutRoutes, startRouteServer } from "../testing/route-server.ts";
import type { RouteServer } from "../testing/route-server.ts";
import type { RolloutModel } from "./rollout-model.ts";

const servers: RouteServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

async function setUp() {
  const { rollouts, routes } = rolloutRoutes();
  const server = await startRouteServer(routes);
  servers.push(server);
  const model = await server.hone().model({ name: "m" });
  return { rollouts, server, model };
}

function chat(content: string, model = "m"): RequestInit {
  return {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content }] }),
  };
}

describe("a client made at module level", () => {
  it("takes part in the rollout that it is called in, concurrent ones apart", async () => {
    const { rollouts, server, model } = await setUp();
    const client = (content: string) =>
      model.fetch(`${server.url}/v1/chat/completions`, chat(content));
    const rollout = async (_: RolloutModel, n: number) => {
      for (let turn = 0; turn < 3; turn += 1) {
        await sleep(Math.random() * 10);
        const answer: any = await (await client(`${n}.${turn}`)).json();
        expect(answer.choices[0].message.content).toBe(`${n}.${turn}`);
      }
      return n;
    };
    const groups = await gather(model, rollout, [1, 2, 3, 4], { concurrency: 4 });
    for (const { scenario, trajectories } of groups) {
      const calls = rollouts.get(trajectories[0]?.rolloutId ?? "")?.calls ?? [];
      expect(calls.map((call) => call.messages[0].content)).toEqual(
        [0, 1, 2].map((turn) => `${String(scenario)}.${turn}`),
      );
    }
    expect(server.seen("POST /v1/chat/completions")).toEqual([]);
  });

  it("may have been made in another rollout", async () => {
    const { rollouts, model } = await setUp();
    let client: ((content: string) => Promise<Response>) | undefined;
    const rollout = async (m: RolloutModel, n: number) => {
      const url = `${m.connection().baseURL}/chat/completions`;
      client ??= (content) => m.fetch(url, chat(content));
      await (await client(String(n))).json();
      return n;
    };
    await gather(model, rollout, [1, 2, 3], { concurrency: 1 });
    expect([...rollouts.values()].map((r) => r.calls.map((c) => c.messages[0].content))).toEqual([
      ["1"],
      ["2"],
      ["3"],
    ]);
  });

  it("is captured by a Request object too", async () => {
    const { rollouts, server, model } = await setUp();
    await gather(model, async () => {
      const request = new Request(`${server.url}/v1/chat/completions`, chat("x"));
      return (await model.fetch(request)).ok ? 1 : 0;
    }, [1]);
    expect([...rollouts.values()][0]?.calls[0].messages[0].content).toBe("x");
  });

  it("leaves alone what is no completion of the rollout's model", async () => {
    const { rollouts, server, model } = await setUp();
    await gather(model, async () => {
      await model.fetch(`${server.url}/v1/chat/completions`, chat("judge", "judge"));
      await model.fetch(`${server.url}/v1/models/m`);
      return 1;
    }, [1]);
    await model.fetch(`${server.url}/v1/chat/completions`, chat("outside"));
    expect([...rollouts.values()].flatMap((rollout) => rollout.calls)).toEqual([]);
    expect(server.seen("POST /v1/chat/completions").map((r) => r.body.messages[0].content)).toEqual(
      ["judge", "outside"],
    );
    expect(server.received.every((r) => r.headers.authorization === "Bearer the-key")).toBe(true);
  });

  it("gives the key to no other server", async () => {
    const { server, model } = await setUp();
    const { server: other } = await setUp();
    await gather(
      model,
      async (m) => {
        for (const fetch of [m.fetch, model.fetch, m.connection().fetch]) {
          await fetch(`${other.url}/v1/chat/completions`, chat("x"));
        }
        return 1;
      },
      [1],
    );
    const calls = other.seen("POST /v1/chat/completions");
    expect(calls).toHaveLength(3);
    expect(calls.some((call) => "authorization" in call.headers)).toBe(false);
    expect(server.seen("POST /v1/chat/completions")).toEqual([]);
  });
});
