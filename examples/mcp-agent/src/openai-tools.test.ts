import type { Tool } from "@modelcontextprotocol/client";
import { describe, expect, it } from "vitest";
import { holdable, toOpenAITools } from "./openai-tools.ts";

const tool = (name: string, rest: object = {}): Tool => ({
  ...{ name, inputSchema: { type: "object", properties: {} } },
  ...rest,
});

describe("tools of a server as tools of chat completions", () => {
  it("get names that the API takes, each its own, and leave some free", () => {
    const given = ["fs.read", "fs/read", "complete_task", "x".repeat(128)].map((name) =>
      tool(name),
    );
    const { tools, names } = toOpenAITools(given, { reserved: ["complete_task"] });
    const made = tools.map((one) => one.function.name);
    expect(made).toEqual(["fs_read", "fs_read_2", "complete_task_2", "x".repeat(60)]);
    expect(made.every((name) => /^[a-zA-Z0-9_-]{1,64}$/.test(name))).toBe(true);
    expect(made.map((name) => names.get(name))).toEqual(given.map(({ name }) => name));
  });

  it("keep description and schema, without what only says which draft it is", () => {
    const $schema = "http://json-schema.org/draft-07/schema#";
    const inputSchema = {
      ...{ $schema, type: "object" as const },
      properties: { a: { type: "array", uniqueItems: true } },
    };
    const [made] = toOpenAITools([tool("a", { description: "Does it.", inputSchema })]).tools;
    const { $schema: _, ...parameters } = inputSchema;
    expect(made?.function).toEqual({ name: "a", description: "Does it.", parameters });
    const [titled] = toOpenAITools([tool("a", { title: "It" })]).tools;
    expect(titled?.function.description).toBe("It");
  });
});

it("a held schema loses what no grammar holds, and no property for its name", () => {
  const schema = {
    type: "object",
    properties: {
      not: { type: "string", format: "iri", not: { const: "x" }, minLength: 2 },
      list: {
        ...{ type: "array", uniqueItems: true, minItems: 1 },
        items: { oneOf: [{ type: "string", format: "uri" }, { type: "string" }] },
      },
      open: { type: "object", additionalProperties: { type: "number", multipleOf: 3 } },
    },
    required: ["not"],
    dependentRequired: { not: ["list"] },
  };
  expect(holdable(schema)).toEqual({
    type: "object",
    properties: {
      not: { type: "string", minLength: 2 },
      list: {
        ...{ type: "array", minItems: 1 },
        items: { anyOf: [{ type: "string" }, { type: "string" }] },
      },
      open: { type: "object", additionalProperties: { type: "number" } },
    },
    required: ["not"],
    additionalProperties: false,
  });
});
