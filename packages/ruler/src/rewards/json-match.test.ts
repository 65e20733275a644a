import { describe, expect, it } from "vitest";
import { z } from "zod";
import { group, trajectory } from "../testing/group.test-support.ts";
import type { JsonSchema } from "./json-schema.ts";
import { jsonMatch } from "./text-rewards.ts";

const give = (schema: JsonSchema | z.ZodType, text: string) =>
  jsonMatch({ schema })(trajectory(text), { group: group([]), index: 0 });

describe("jsonMatch", () => {
  const own = z.strictObject({ a: z.int() });
  const same = {
    type: "object",
    properties: { a: { type: "integer" } },
    required: ["a"],
    additionalProperties: false,
  };

  it.each<[string, JsonSchema | z.ZodType]>([
    ["zod", own],
    ["zod's JSON Schema", z.toJSONSchema(own)],
    ["JSON Schema", same],
    ["draft-07", { ...same, $schema: "http://json-schema.org/draft-07/schema#" }],
    ["draft-04", { ...same, $schema: "http://json-schema.org/draft-04/schema#" }],
  ])("takes JSON and nothing else: %s", (_, schema) => {
    expect(give(schema, '{"a": 1}')).toBe(1);
    expect(give(schema, '```json\n{"a": 1}\n```')).toBe(1);
    expect(give(schema, '~~~~ json title="a b"\n\n{"a":\n1}\n\n~~~~')).toBe(1);
    for (const bad of [
      ...['{"a": 1.5}', '{"a": 1, "b": 2}', "{}", 'Here: {"a": 1}', '{"a": 1', ""],
      ...['```json\n{"a": 1}', '```json\n{"a": 1}\n```\nHere it is.', '```\n{"a": 1}\n~~~'],
      '```\nno\n```\n```\n{"a": 1}\n```',
    ]) {
      expect(give(schema, bad)).toBe(0);
    }
  });

  const nested = { $defs: { n: { items: { $ref: "#/$defs/n" } } }, $ref: "#/$defs/n" };
  it.each<[JsonSchema, string, 0 | 1]>([
    [{ type: "object", required: ["a"] }, "{}", 0],
    [{ type: "object", required: ["a"] }, '{"a": null}', 1],
    [
      { type: "object", properties: { a: { type: "string" } }, required: ["a", "b"] },
      '{"a": "x"}',
      0,
    ],
    [{ required: ["a"] }, "{}", 0],
    [{ required: ["toString"] }, "{}", 0],
    [{ properties: { a: { type: "string" } } }, '{"a": 1}', 0],
    [{ properties: { a: { type: "string" } } }, "{}", 1],
    [{ minimum: 5 }, "1", 0],
    [{ minimum: 5 }, '"1"', 1],
    [{ properties: { a: { default: 1 } }, required: ["a"] }, "{}", 0],
    [{ const: { a: [1, null] } }, '{"a": [1, null]}', 1],
    [{ const: { a: 1 } }, '{"a": 1, "b": 2}', 0],
    [{ enum: [{ a: 1, b: 2 }, 3] }, '{"b": 2, "a": 1}', 1],
    [{ enum: [{ a: 1 }, 3] }, '{"a": 2}', 0],
    [{ type: "object", additionalProperties: false }, '{"__proto__": 1}', 0],
    [{ prefixItems: [{ type: "string" }], items: false }, '["a", 1]', 0],
    [{ oneOf: [{ type: "number" }, { multipleOf: 2 }] }, "4", 0],
    [{ multipleOf: 0.01 }, "0.07", 1],
    [{ $defs: { a: { type: "null" } }, $ref: "#/$defs/a" }, "0", 0],
    [{ $defs: { a: { $anchor: "b", type: "null" } }, $ref: "#b" }, "null", 1],
    [{ pattern: "^\\p{Lu}" }, '"É"', 1],
    [{ format: "date" }, '"2026-02-30"', 0],
    [{ format: "url" }, `"http://${"a".repeat(200_000)}-"`, 1],
    [{ format: "constructor", properties: { format: { type: "null" } } }, '{"format": 1}', 0],
    [true, "1", 1],
    [false, "1", 0],
    [{ type: ["string", "null"], maxLength: undefined }, "null", 1],
    [nested, `${"[".repeat(100_000)}${"]".repeat(100_000)}`, 0],
    [{ additionalProperties: true }, '{"\\ud800": 1}', 0],
  ])("%# %j", (schema, text, expected) => {
    const before = structuredClone(schema);
    expect(give(schema, text)).toBe(expected);
    expect(schema).toEqual(before);
  });

  it.each<[string, unknown, RegExp]>([
    ["an unknown type", { type: "objekt" }, /#\/type/],
    ["an unknown type within", { properties: { a: { items: { type: "text" } } } }, /items\/type/],
    ["a list", [{ type: "object" }], /neither an object/],
    ["a text", "object", /neither an object/],
    ["nothing", undefined, /cannot be written|neither/],
    ["a property that is no schema", { properties: { a: "string" } }, /#\/properties\/a/],
    ["a name for names", { required: "a" }, /#\/required/],
    ["a pattern that is none", { pattern: "(" }, /#\/pattern/],
    ["a pattern of names that is none", { patternProperties: { "(": {} } }, /patternProperties/],
    ["an older draft's items", { items: [{ type: "string" }] }, /#\/items/],
    ["an older draft's limit", { minimum: 1, exclusiveMinimum: true }, /#\/exclusiveMinimum/],
    ["a $ref to nothing", { $ref: "#/$defs/a" }, /\$ref "#\/\$defs\/a"/],
    ["a $ref to elsewhere", { items: { $ref: "https://h.example/a.json" } }, /not fetched/],
    ["a $ref that is no address", { $ref: "http://[" }, /no JSON Schema/],
    ["a $ref to itself", { items: { anyOf: [{ $ref: "#/items" }] } }, /without end/],
    ["a $dynamicRef", { $dynamicRef: "#a" }, /dynamicRef/],
    ["an unknown draft", { $schema: "http://json-schema.org/draft-09/schema" }, /no known draft/],
  ])("refuses %s when it is made", (_, schema, message) => {
    const make = () => jsonMatch({ schema: schema as JsonSchema });
    expect(make).toThrow(expect.objectContaining({ code: "invalid_config", param: "schema" }));
    expect(make).toThrow(message);
  });

  it("takes what an older draft had, where the schema names that draft", () => {
    const $schema = "http://json-schema.org/draft-07/schema#";
    const pair = { $schema, items: [{ type: "string" }], additionalItems: false };
    expect(give(pair, '["a"]')).toBe(1);
    expect(give(pair, '["a", 1]')).toBe(0);
    const above = {
      $schema: "http://json-schema.org/draft-04/schema#",
      minimum: 1,
      exclusiveMinimum: true,
      additionalProperties: false,
    };
    expect(give(above, "1")).toBe(0);
    expect(give(above, "2")).toBe(1);
  });

  it("takes a zod schema that refers to itself, and JSON that is deeper than the stack", () => {
    type Nested = Nested[];
    const schema: z.ZodType<Nested> = z.lazy(() => z.array(schema));
    expect(give(schema, "[[[]]]")).toBe(1);
    expect(give(schema, "[".repeat(100_000) + "]".repeat(100_000))).toBe(0);
  });
});
