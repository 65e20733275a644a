import { setMaxListeners } from "node:events";
import type { RolloutModel } from "@hone/client";
import type OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { playScenario } from "./agent.ts";
import { withServer, type RunningServer } from "./mcp-server.ts";
import { memory } from "./servers.ts";

interface Request {
  messages: OpenAI.ChatCompletionMessageParam[];
  tools: OpenAI.ChatCompletionFunctionTool[];
  tool_choice?: string;
}
type Call = [name: string, args: string];
/** One turn of a scripted model: calls, a text, a text that a limit cut, or an error of its API. */
type Turn = Call[] | { text: string; cut?: true } | { error: string };

/** The agent on a server, with a model behind openai-node that says these turns. */
async function play(
  server: RunningServer,
  turns: readonly Turn[],
  { mostTurns = 6, held = false } = {},
) {
  const requests: Request[] = [];
  const fetch = async (_url: unknown, init?: { body?: unknown }) => {
    requests.push(JSON.parse(String(init?.body)) as Request);
    const turn = turns[requests.length - 1] ?? [];
    if ("error" in turn) {
      return Response.json({ error: { code: turn.error, message: "No." } }, { status: 400 });
    }
    const tool_calls = !Array.isArray(turn)
      ? undefined
      : turn.map(([name, args], at) => ({
          ...{ id: `call_${requests.length}_${at}`, type: "function" },
          function: { name, arguments: args },
        }));
    const text = Array.isArray(turn) ? null : turn.text;
    const message = { role: "assistant", content: text, tool_calls };
    const finish_reason = "cut" in turn ? "length" : "stop";
    const usage = { prompt_tokens: 1, completion_tokens: 10, total_tokens: 11 };
    return Response.json({ choices: [{ index: 0, message, finish_reason }], usage });
  };
  const connection = () => ({ baseURL: "http://model.test/v1", apiKey: "k", model: "m", fetch });
  const model = { connection, signal } as unknown as RolloutModel;
  const how = { mostTurns, temperature: 1, answerTokens: 40, held };
  const episode = await playScenario(model, server, { task: "1. Read the graph" }, how);
  return { episode, requests };
}

const { signal } = new AbortController();
// As the signal of a rollout is: each request of openai-node listens to it.
setMaxListeners(0, signal);
const read: Call = ["read_graph", "{}"];
const complete: Call = ["complete_task", '{"summary":"Three entities."}'];

describe("the agent", () => {
  it("calls one tool after another, sees what each gave, and completes the task", async () => {
    await withServer(memory, signal, async (server) => {
      const add = { entities: [{ name: "Cleo", entityType: "person", observations: [] }] };
      const { episode, requests } = await play(server, [
        [["create_entities", JSON.stringify(add)], read],
        [
          ["open_nodes", "{"],
          ["fly", "{}"],
          ["open_nodes", '{"names":3}'],
        ],
        [complete],
      ]);
      expect(episode).toEqual({
        calls: [
          { tool: "create_entities", arguments: add, failed: false },
          { tool: "read_graph", arguments: {}, failed: false },
          { tool: "open_nodes", arguments: {}, failed: true },
          { tool: "fly", arguments: {}, failed: true },
          { tool: "open_nodes", arguments: { names: 3 }, failed: true },
        ],
        ...{ summary: "Three entities.", turns: 3, tokens: 30 },
      });
      const { messages, tools } = requests[2]!;
      const results = messages.filter((one) => one.role === "tool");
      expect(results.map((one) => one.tool_call_id)).toEqual([
        ...["call_1_0", "call_1_1", "call_2_0", "call_2_1", "call_2_2"],
      ]);
      expect(results[1]?.content).toContain("Cleo");
      expect(results.slice(2).map(({ content }) => content)).toEqual([
        '{"error":"The arguments are no JSON object."}',
        '{"error":"There is no tool fly."}',
        expect.stringContaining("names"),
      ]);
      expect(tools.map((tool) => tool.function.name)).toEqual(
        expect.arrayContaining(["read_graph", "complete_task"]),
      );
      expect(requests[0]).not.toHaveProperty("tool_choice");
      const held = await play(server, [[complete]], { held: true });
      expect(held.requests[0]).toMatchObject({ tool_choice: "required" });
    });
  });

  it("ends at a text, a text that was cut, a full context, and when the turns are over", async () => {
    await withServer(memory, signal, async (server) => {
      const end = async (turns: Turn[], mostTurns = 6) =>
        (await play(server, turns, { mostTurns })).episode;
      expect(await end([{ text: "Done." }])).toMatchObject({ summary: "Done.", turns: 1 });
      expect(await end([{ text: '{"na', cut: true }])).toMatchObject({ summary: null, turns: 1 });
      const full = await end([[read], { error: "context_length_exceeded" }]);
      expect(full).toMatchObject({ summary: null, turns: 1 });
      expect(await end([[read], [read], [read]], 2)).toMatchObject({ summary: null, turns: 2 });
      await expect(end([{ error: "invalid_schema" }])).rejects.toThrow("400 No.");
    });
  });
});
