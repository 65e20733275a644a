import type { Tool } from "@modelcontextprotocol/client";
import { describe, expect, it } from "vitest";
import { keepPossible } from "./keep-possible.ts";
import { withServer } from "./mcp-server.ts";
import { readScenarios } from "./scenario-file.ts";
import { firstSentence, makeScenarios, type Scenario } from "./scenarios.ts";
import { filesystem, memory } from "./servers.ts";

const { signal } = new AbortController();

function first(tools: Tool[], count: number, options: Parameters<typeof makeScenarios>[1] = {}) {
  const made = makeScenarios(tools, options);
  return Array.from({ length: count }, () => made.next().value);
}

const odd: Tool = {
  name: "odd",
  description: "Does e.g. this. And more.",
  inputSchema: {
    type: "object",
    properties: {
      mode: { enum: ["fast", "slow"] },
      level: { type: "integer", minimum: 3, maximum: 5 },
      share: { type: ["null", "number"], exclusiveMaximum: 3 },
      on: { type: "boolean" },
      tags: { type: "array", items: { type: "string", minLength: 9 }, minItems: 2, maxItems: 2 },
      either: { anyOf: [{ type: "null" }, { const: "x" }] },
      tree: { $ref: "#/$defs/node" },
      city: { type: "string" },
      free: {},
    },
    required: ["mode", "level", "share", "on", "tags", "either", "tree", "city", "free"],
    $defs: {
      node: {
        type: "object",
        properties: { label: { type: "string" }, next: { $ref: "#/$defs/node" } },
        required: ["label"],
      },
    },
  },
};

describe("scenarios of schemas alone", () => {
  it("are the same for a seed, and others for another", () => {
    expect(first([odd], 30, { seed: 3 })).toEqual(first([odd], 30, { seed: 3 }));
    expect(first([odd], 30, { seed: 3 })).not.toEqual(first([odd], 30, { seed: 4 }));
    expect(new Set(first([odd], 30).map(({ difficulty }) => difficulty))).toEqual(
      new Set([1, 2, 3]),
    );
  });

  it("give values that keep to the schema, and the server's own words", () => {
    const calls = first([odd], 60, { words: { city: ["Bern"] } }).flatMap((one) => one.calls!);
    for (const { tool, arguments: args } of calls) {
      expect(tool).toBe("odd");
      expect(args).toEqual({
        mode: expect.stringMatching(/^(fast|slow)$/),
        level: expect.any(Number),
        share: expect.any(Number),
        on: expect.any(Boolean),
        tags: [expect.stringMatching(/^.{9,}$/), expect.stringMatching(/^.{9,}$/)],
        ...{ either: "x", city: "Bern", free: expect.any(String) },
        tree: { label: expect.any(String) },
      });
      expect([3, 4, 5]).toContain(args["level"]);
      expect(args["share"]).toBeLessThan(3);
    }
  });

  it("say what to do in the words of the description", () => {
    expect(firstSentence("Does e.g. this. And more.")).toBe("Does e.g");
    expect(firstSentence("Reads v1.2 files\nand more")).toBe("Reads v1.2 files");
    const [{ task, calls }] = first([{ ...odd, description: "Does it." }], 1) as [Scenario];
    expect(task.split("\n")[0]).toBe(`1. Does it: ${JSON.stringify(calls?.[0]?.arguments)}`);
  });
});

describe("the scenarios of the repository", () => {
  it.each([filesystem, memory])("of $name are those that its tools give", async (server) => {
    const kept = readScenarios(new URL(`../scenarios/${server.name}.jsonl`, import.meta.url));
    expect(kept).toHaveLength(64);
    const tools = await withServer(server, signal, async (running) => running.tools);
    // Those that the server cannot do are left out; the order stays.
    const made = first(tools, 400, { words: server.words }).map(({ task }) => task);
    const places = kept.map(({ task }) => made.indexOf(task));
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(places[0]).toBeGreaterThanOrEqual(0);
    const again = await keepPossible(server, kept.slice(0, 2).values(), 2, signal);
    expect(again).toEqual(kept.slice(0, 2));
  });

  it("hold none that the server cannot do", async () => {
    const path = { tool: "read_text_file", arguments: { path: "no/such.txt" } };
    const impossible = {
      task: "1. Read.",
      difficulty: 1,
      tools: ["read_text_file"],
      calls: [path],
    };
    const list = { tool: "list_directory", arguments: { path: "notes" } };
    const possible = { ...impossible, task: "1. List.", calls: [list] };
    const kept = await keepPossible(
      filesystem,
      [impossible, possible, possible].values(),
      2,
      signal,
    );
    expect(kept).toEqual([possible]);
  });
});
