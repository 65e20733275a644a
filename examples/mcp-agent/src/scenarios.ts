import type { Tool } from "@modelcontextprotocol/client";
import { z } from "zod";
import { pick, uniforms, type Random } from "./random.ts";

const callSchema = z.strictObject({
  tool: z.string(),
  arguments: z.record(z.string(), z.unknown()),
});

/** A task for an agent of an MCP server. */
export const scenarioSchema = z.strictObject({
  task: z.string(),
  /** From 1, which is easy, to 5. */
  difficulty: z.int().min(1).max(5),
  /** The tools that it takes. */
  tools: z.array(z.string()),
  /** The calls that it asks for, in order, where it was made from schemas. */
  calls: z.array(callSchema).optional(),
});
export type Scenario = z.infer<typeof scenarioSchema>;

type Schema = Record<string, unknown>;
type Words = Readonly<Record<string, readonly unknown[]>>;

/**
 * Scenarios without end, made of the tools' schemas alone: one to three calls with arguments, each in the words of
 * its tool's description. The same seed gives the same ones. Not every one can be done, because a schema does not
 * say what a server has: see `keepPossible`.
 */
export function* makeScenarios(
  tools: readonly Tool[],
  { seed = 0, words = {} }: { seed?: number; words?: Words | undefined } = {},
): Generator<Scenario, never> {
  const random = uniforms(seed);
  for (;;) {
    const steps = 1 + Math.floor(random() * 3);
    const calls = Array.from({ length: steps }, () => {
      const tool = pick(random, tools);
      const root = tool.inputSchema as Schema;
      const given = valueOf(root, { random, words, root, depth: 0 }, "");
      return { tool, arguments: (given ?? {}) as Record<string, unknown> };
    });
    yield {
      task: calls
        .map((call, step) => `${step + 1}. ${inWords(call.tool, call.arguments)}`)
        .join("\n"),
      difficulty: steps,
      tools: [...new Set(calls.map(({ tool }) => tool.name))],
      calls: calls.map((call) => ({ tool: call.tool.name, arguments: call.arguments })),
    };
  }
}

/** How a scenario asks for a call; `rubric-scorer.ts` reads it again. */
function inWords(tool: Tool, args: Record<string, unknown>): string {
  const given = Object.keys(args).length === 0 ? "" : `: ${JSON.stringify(args)}`;
  return `${firstSentence(tool.description ?? tool.title ?? tool.name)}${given}`;
}

/** What a tool does, by its description. */
export function firstSentence(description: string): string {
  return (/^[^\n]*?(?=[.!?](?:\s|$)|\n|$)/.exec(description.trim())?.[0] ?? description).trim();
}

interface Draw {
  random: Random;
  words: Words;
  root: Schema;
  depth: number;
}

const plainWords = "amber birch cedar delta ember fjord harbor lantern".split(" ");

/** A value that keeps to what schemas usually say. Parameters that are not required come now and then. */
function valueOf(schema: Schema, draw: Draw, name: string): unknown {
  const { random, words, root, depth } = draw;
  if (schema["type"] !== "array" && schema["type"] !== "object" && words[name]?.length) {
    return pick(random, words[name]);
  }
  if (typeof schema["$ref"] === "string") {
    const target = depth > 8 ? undefined : at(root, schema["$ref"]);
    return target === undefined ? null : valueOf(target, { ...draw, depth: depth + 1 }, name);
  }
  if ("const" in schema) return schema["const"];
  for (const key of ["enum", "examples"]) {
    const list = schema[key];
    if (Array.isArray(list) && list.length > 0) return pick(random, list as unknown[]);
  }
  const choice = schema["anyOf"] ?? schema["oneOf"];
  if (Array.isArray(choice)) {
    const real = (choice as Schema[]).find((one) => one["type"] !== "null") ?? {};
    return valueOf(real, { ...draw, depth: depth + 1 }, name);
  }
  const types = [schema["type"]].flat();
  switch (types.find((type) => type !== "null") ?? (schema["properties"] ? "object" : "string")) {
    case "object":
      return objectOf(schema, draw);
    case "array": {
      const least = Number(schema["minItems"] ?? 1);
      const most = Math.min(Number(schema["maxItems"] ?? least + 1), least + 1);
      const length = Math.max(least, most === least || random() < 0.6 ? least : most);
      const inner = { ...draw, depth: depth + 1 };
      const items = (schema["items"] ?? {}) as Schema;
      return Array.from({ length }, () => valueOf(items, inner, name));
    }
    case "integer":
    case "number": {
      const least = Number(schema["minimum"] ?? Number(schema["exclusiveMinimum"] ?? 0) + 1);
      const most = Number(schema["maximum"] ?? Number(schema["exclusiveMaximum"] ?? least + 6) - 1);
      return Math.ceil(least) + Math.floor(random() * Math.max(1, Math.min(most - least + 1, 9)));
    }
    case "boolean":
      return random() < 0.5;
    case "null":
      return null;
    default:
      return pick(random, plainWords).padEnd(Number(schema["minLength"] ?? 0), "a");
  }
}

function objectOf(schema: Schema, draw: Draw): Record<string, unknown> {
  const required = new Set((schema["required"] ?? []) as string[]);
  const chosen = Object.entries((schema["properties"] ?? {}) as Record<string, Schema>).filter(
    ([name]) => required.has(name) || (draw.depth === 0 && draw.random() < 0.25),
  );
  const inner = { ...draw, depth: draw.depth + 1 };
  return Object.fromEntries(chosen.map(([name, one]) => [name, valueOf(one, inner, name)]));
}

/** A part of the document: `#/$defs/Name`. */
function at(root: Schema, reference: string): Schema | undefined {
  if (!reference.startsWith("#")) return undefined;
  return reference
    .slice(1)
    .split("/")
    .filter(Boolean)
    .reduce<Schema | undefined>((part, key) => part?.[key] as Schema | undefined, root);
}
