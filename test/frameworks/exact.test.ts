/** Every framework against the server's gateway, where the model says what it is told to say. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { conversations } from "../../packages/server/src/ledger/trajectory.ts";
import {
  createRendererClient,
  type RendererClient,
} from "../../packages/server/src/renderer/http-renderer.ts";
import type { Child } from "../../packages/server/src/supervise/child.ts";
import { startRendererChild } from "../../packages/server/src/testing/running-engine.ts";
import {
  createScriptedEngine,
  type ScriptedEngine,
} from "../../packages/server/src/testing/scripted-engine.ts";
import {
  serveGateway,
  type ServedGateway,
} from "../../packages/server/src/testing/served-gateway.ts";
import { entriesOf, load, runnable, type Entry } from "./matrix.ts";
import { reward, shapeOf } from "./reward.ts";

const call = (name: string, args: object) => ({
  ...{ id: name, type: "function" as const },
  function: { name, arguments: JSON.stringify(args) },
});
const calls = (...tool_calls: ReturnType<typeof call>[]) => ({
  answer: { content: null, tool_calls },
});
const finals = {
  text: { answer: { content: "In the chest." } },
  object: { answer: { content: '{"place":"chest"}' } },
  tool: calls(call("Place", { place: "chest" })),
};

describe.each(runnable)("the frameworks of %s", (set) => {
  let child: Child;
  let renderer: RendererClient;
  let engine: ScriptedEngine;
  let gateway: ServedGateway;
  let rollouts = 0;
  const table: Record<string, object> = {};
  beforeAll(async () => {
    child = await startRendererChild();
    renderer = createRendererClient({ baseURL: () => child.baseURL, key: () => child.key });
    engine = createScriptedEngine(renderer);
    gateway = await serveGateway(engine, renderer);
  });
  afterAll(async () => {
    if (process.env["HONE_MATRIX"]) console.table(table);
    await gateway?.close();
    await renderer?.close();
    await child?.stop();
  });

  const play = async (entry: Entry, streamed: boolean) => {
    const agent = await load(entry, set);
    const rollout = `ro_${++rollouts}`;
    const baseURL = `${gateway.baseURL}/v1/rollouts/${rollout}`;
    const connection = { apiKey: "k", model: "m", fetch };
    engine.requests.length = 0;
    engine.lines.splice(
      ...[0, engine.lines.length],
      calls(call("look", { where: "attic" }), call("look", { where: "hall" })),
      calls(call("open", { what: "chest" })),
      finals[entry.final ?? "text"],
    );
    const said = await agent({
      openai: { ...connection, baseURL: `${baseURL}/v1` },
      anthropic: { ...connection, baseURL, authToken: null },
      streamed,
    });
    return { said, recorded: gateway.ledger.of(rollout), requests: [...engine.requests] };
  };

  describe.each(entriesOf(set))("$name", (entry) => {
    it.each([false, true])("goes on token for token, streamed %s", async (streamed) => {
      const { said, recorded, requests } = await play(entry, streamed);
      expect(said).toBe(entry.final ? '{"place":"chest"}' : "In the chest.");
      expect(recorded).toHaveLength(3);
      expect(recorded.every(({ delivered }) => delivered)).toBe(true);
      const splits = recorded.map(({ splitReason }) => splitReason);
      expect(splits).toEqual([null, entry.split ?? null, null]);
      for (const [i, { parentId }] of recorded.entries()) {
        const before = recorded[i - 1];
        if (!before || splits[i]) continue;
        expect(parentId).toBe(before.id);
        const known = [...requests[i - 1]!.prompt, ...before.sampled];
        expect(requests[i]!.prompt.slice(0, known.length)).toEqual(known);
      }
      const sampled = recorded.reduce((sum, completion) => sum + completion.sampled.length, 0);
      const rendered = requests.reduce((sum, { prompt }) => sum + prompt.length, sampled);
      const kept = recorded.reduce((sum, one) => sum + one.promptSuffix.length, sampled);
      const saved = `${((1 - kept / rendered) * 100).toFixed(0)} %`;
      table[`${entry.name}${streamed ? ", streamed" : ""}`] = { rendered, kept, saved };
      expect(kept / rendered).toBeLessThan(entry.split ? 0.8 : 0.5);
      const [longest] = conversations(recorded);
      expect(shapeOf(longest!)).toEqual([
        "system",
        "user",
        "2 calls",
        "tool",
        "tool",
        "1 calls",
        "tool",
        entry.final === "tool" ? "1 calls" : "answer",
      ]);
      expect(reward(longest!)).toBeCloseTo(0.9);
    });
  });
});
