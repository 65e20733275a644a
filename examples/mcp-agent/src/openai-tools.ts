import type { Tool } from "@modelcontextprotocol/client";
import type OpenAI from "openai";

export interface OpenAITools {
  tools: OpenAI.ChatCompletionFunctionTool[];
  /** The server's name of a tool, by the name that the model knows. */
  names: ReadonlyMap<string, string>;
}

/**
 * Tools of an MCP server as chat completions want them. MCP lets names have dots, slashes and 128 characters; what
 * OpenAI's API does not take is replaced, and `reserved` names are left free.
 *
 * With `held` the schemas lose what no grammar can hold arguments to while they are sampled. The server still checks
 * it: arguments against it are an error that the model is told of.
 */
export function toOpenAITools(
  given: readonly Tool[],
  { held = false, reserved = [] }: { held?: boolean; reserved?: readonly string[] } = {},
): OpenAITools {
  const names = new Map<string, string>();
  const tools = given.map(({ name, title, description, inputSchema }) => {
    const { $schema: _, ...schema } = inputSchema as Record<string, unknown>;
    const plain = name.replaceAll(/[^a-zA-Z0-9_-]/g, "_").slice(0, 60);
    let free = plain;
    for (let n = 2; names.has(free) || reserved.includes(free); n += 1) free = `${plain}_${n}`;
    names.set(free, name);
    const parameters = held ? holdable(schema) : schema;
    const text = description ?? title;
    const told = text === undefined ? {} : { description: text };
    return { type: "function" as const, function: { name: free, ...told, parameters } };
  });
  return { tools, names };
}

const unholdable = new Set([
  ...["not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains"],
  ...["dependentRequired", "dependentSchemas", "dependencies", "minProperties", "maxProperties"],
  ...["unevaluatedProperties", "unevaluatedItems", "propertyNames", "multipleOf", "format"],
  ...["contentEncoding", "contentMediaType", "contentSchema", "$schema", "$id", "$comment"],
]);
const ofSchemas = new Set(["properties", "patternProperties", "$defs", "definitions"]);
const schemaOrList = new Set([
  ...["items", "additionalProperties", "additionalItems", "prefixItems", "anyOf", "allOf", "oneOf"],
]);

/**
 * The schema with fewer demands, but for one: an object that names its properties has no others, because a small
 * model that may invent names does.
 */
export function holdable(schema: Record<string, unknown>): Record<string, unknown> {
  const kept: [string, unknown][] = [];
  for (const [key, value] of Object.entries(schema)) {
    if (unholdable.has(key)) continue;
    if (ofSchemas.has(key) && isObject(value)) {
      const inner = Object.entries(value).map(([name, one]) => [name, looser(one)] as const);
      kept.push([key, Object.fromEntries(inner)]);
    } else if (schemaOrList.has(key)) {
      // Alternatives may overlap once they demand less, and then no grammar has an exclusive choice.
      kept.push([key === "oneOf" ? "anyOf" : key, looser(value)]);
    } else kept.push([key, value]);
  }
  const closed = isObject(schema["properties"]) && !("additionalProperties" in schema);
  return Object.fromEntries(closed ? [...kept, ["additionalProperties", false]] : kept);
}

function looser(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(looser);
  return isObject(value) ? holdable(value) : value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
