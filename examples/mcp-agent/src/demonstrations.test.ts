import { expect, it } from "vitest";
import { demonstrations } from "./demonstrations.ts";
import { memory } from "./servers.ts";

it("shows the calls of a scenario, what the server gave, and the end", async () => {
  const calls = [
    { tool: "search_nodes", arguments: { query: "oak" } },
    { tool: "delete_entities", arguments: { entityNames: ["Ann"] } },
  ];
  const tools = calls.map(({ tool }) => tool);
  const scenario = { task: "1. Search\n2. Delete", difficulty: 2, tools, calls };
  const how = { mostTurns: 6, held: false, signal: new AbortController().signal };
  const [shown, again] = await demonstrations(memory, [scenario, scenario], how);
  expect(again).toEqual(shown);
  const { messages, tools: given } = shown as { messages: object[]; tools: object[] };
  const call = (name: string) => ({ role: "assistant", tool_calls: [{ function: { name } }] });
  expect(messages).toMatchObject([
    { role: "system" },
    { role: "user", content: scenario.task },
    call("search_nodes"),
    { role: "tool", content: expect.stringContaining("likes oak") },
    call("delete_entities"),
    { role: "tool" },
    call("complete_task"),
  ]);
  expect(given).toHaveLength(10);
});
