import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { gather } from "./gather.ts";
import { rolloutRoutes, sendError, startRouteServer } from "../testing/route-server.ts";
import type { Handler, RouteServer } from "../testing/route-server.ts";
import type { RolloutModel } from "./rollout-model.ts";

let server: RouteServer;
let warnings: string[] = [];
const listen = (warning: Error): void => {
  if (warning.name === "HoneWarning") warnings.push(warning.message);
};
beforeEach(() => {
  warnings = [];
  process.on("warning", listen);
});
afterEach(async () => {
  process.off("warning", listen);
  await server.close();
});

async function modelWith(chat?: Handler) {
  const made = rolloutRoutes(chat ? { chat } : {});
  server = await startRouteServer(made.routes);
  return { ...made, model: await server.hone().model({ name: "m" }) };
}

function say(model: RolloutModel, url = model.connection().baseURL): Promise<Response> {
  return model.connection().fetch(`${url}/chat/completions`, {
    method: "POST",
    body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "x" }] }),
  });
}

/** Node tells of a warning in its own time. */
async function said(): Promise<string[]> {
  await new Promise((resolve) => setImmediate(resolve));
  return warnings;
}

describe("what a step would only count is said in words, once", () => {
  it("nothing where all is well", async () => {
    const { model } = await modelWith();
    await gather(model, async (m) => ((await say(m)).ok ? 1 : 0), [1, 2]);
    expect(await said()).toEqual([]);
  });

  it.each(["train", "eval"] as const)("rollouts that made no call, in mode %s", async (mode) => {
    const { model } = await modelWith();
    await gather(model, () => 1, [1, 2], { mode, groupSize: 2 });
    expect(await said()).toEqual([
      expect.stringMatching(
        /^gather\(\): 4 of 4 rollouts ended without a completion.*model\.connection\(\).*awaited/s,
      ),
    ]);
    expect(warnings[0]?.includes("no_tokens")).toBe(mode === "train");
  });

  it("a call that was not awaited", async () => {
    const { model } = await modelWith(() => {});
    await gather(model, (m) => (void say(m), 1), [1], { groupSize: 2 });
    expect(await said()).toEqual([
      expect.stringContaining("still under way when its rollout returned: await it"),
    ]);
  });

  it("calls whose errors the agent kept to itself", async () => {
    const { model } = await modelWith((_, response) => sendError(response, 400, "invalid_request"));
    await gather(model, async (m) => ((await say(m)).ok ? 1 : 0), [1], { groupSize: 2 });
    expect(await said()).toEqual([
      expect.stringMatching(/answered with errors \(the last one: 400\)/),
    ]);
  });

  it("a client with a base URL of its own", async () => {
    const { model } = await modelWith();
    const plain = async () => {
      await globalThis.fetch(`${server.url}/v1/chat/completions`, {
        method: "POST",
        body: JSON.stringify({ model: "m", messages: [{ content: "x" }] }),
      });
      return 1;
    };
    await gather(model, plain, [1], { groupSize: 2 });
    expect(await said()).toEqual([
      expect.stringContaining("They made no call that the server or the recorder saw"),
    ]);
  });

  it("rollouts at temperature 0", async () => {
    const { rollouts, model } = await modelWith();
    const rollout = async (m: RolloutModel, n: number) => {
      await say(m);
      Object.assign(rollouts.get(m.rolloutId)!, { constrained: n });
      return n;
    };
    await gather(model, rollout, [0, 1], { groupSize: 2 });
    expect(await said()).toEqual([
      expect.stringMatching(
        /2 of 4 rollouts.*temperature 0 \(some frameworks set it unasked\).*`constrained`.*allowConstrained/s,
      ),
    ]);
    await gather(model, rollout, [1], { groupSize: 2, mode: "eval" });
    expect(await said()).toHaveLength(1);

    const held = async (m: RolloutModel) => {
      await say(m);
      const constrainedBy = ["tool_choice"];
      Object.assign(rollouts.get(m.rolloutId)!, { constrained: 1, constrainedBy });
      return 1;
    };
    await gather(model, held, [1], { groupSize: 2 });
    const [, last] = await said();
    expect(last).toMatch(
      /own: with a tool_choice that requires a call.*Ask for tool_choice "auto", or pass/,
    );
    expect(last).not.toContain("temperature");
  });

  it("groups of one", async () => {
    const { model } = await modelWith();
    const rollout = async (m: RolloutModel) => ((await say(m)).ok ? 1 : 0);
    await gather(model, rollout, [1, 2], { groupSize: 1 });
    expect(await said()).toEqual([
      expect.stringMatching(/2 of 2 groups .*`group_too_small`.*groupSize is 1.*give 8/s),
    ]);
    let runs = 0;
    const failing = async (m: RolloutModel) => {
      runs += 1;
      if (runs > 1) throw new Error("no");
      return await rollout(m);
    };
    await gather(model, failing, [1], { groupSize: 2, maxExceptions: 1, concurrency: 1 });
    expect(await said()).toHaveLength(2);
    expect(warnings[1]).toContain("The others failed");
  });

  it("a group has 8 rollouts where it trains, and one where it is evaluated", async () => {
    const { model } = await modelWith();
    const rollout = async (m: RolloutModel) => ((await say(m)).ok ? 1 : 0);
    expect((await gather(model, rollout, [1]))[0]?.trajectories).toHaveLength(8);
    expect((await gather(model, rollout, [1], { mode: "eval" }))[0]?.trajectories).toHaveLength(1);
  });
});
