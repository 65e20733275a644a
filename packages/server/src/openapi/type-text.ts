import type { JsonSchema } from "./schemas.ts";

/**
 * A JSON schema as HTML for a `<pre>`: written as a TypeScript programmer would write the type, with the names
 * of schemas as links.
 */
export function typeText(schema: JsonSchema, depth = 0): string {
  const { $ref, type, items, additionalProperties: rest } = schema;
  if (typeof $ref === "string") {
    const name = escape($ref.slice($ref.lastIndexOf("/") + 1));
    return `<a href="#schema-${name}">${name}</a>`;
  }
  if ("const" in schema) return escape(JSON.stringify(schema["const"]));
  if (Array.isArray(schema["enum"])) {
    return escape(schema["enum"].map((value) => JSON.stringify(value)).join(" | "));
  }
  const branches = (schema["anyOf"] ?? schema["oneOf"]) as JsonSchema[] | undefined;
  if (branches) return branches.map((one) => typeText(one, depth)).join(" | ");
  if (Array.isArray(type)) return escape(type.join(" | "));
  if (type === "array") {
    const item = (items ?? {}) as JsonSchema;
    const several = item["anyOf"] ?? item["oneOf"] ?? item["enum"];
    return several ? `(${typeText(item, depth)})[]` : `${typeText(item, depth)}[]`;
  }
  if (type === "object") {
    if (schema["properties"] && Object.keys(schema["properties"]).length > 0) {
      return objectText(schema, depth);
    }
    if (typeof rest === "object" && rest !== null) {
      return `Record&lt;string, ${typeText(rest as JsonSchema, depth)}&gt;`;
    }
    return rest === false ? "{}" : "object";
  }
  return typeof type === "string" ? type : "any";
}

function objectText(schema: JsonSchema, depth: number): string {
  const required = new Set((schema["required"] as string[] | undefined) ?? []);
  const indent = "  ".repeat(depth + 1);
  const lines = Object.entries(schema["properties"] as Record<string, JsonSchema>).map(
    ([name, property]) =>
      `${indent}${escape(name)}${required.has(name) ? "" : "?"}: ${typeText(property, depth + 1)}${noteOf(property)}\n`,
  );
  if (takesOthers(schema)) lines.push(`${indent}[key: string]: any\n`);
  return `{\n${lines.join("")}${"  ".repeat(depth)}}`;
}

/** Keys that the schema does not name are kept, and not only left alone. */
function takesOthers({ additionalProperties: rest }: JsonSchema): boolean {
  return typeof rest === "object" && rest !== null && Object.keys(rest).length === 0;
}

const limits: [key: string, text: string][] = [
  ["minimum", "≥ "],
  ["exclusiveMinimum", "> "],
  ["maximum", "≤ "],
  ["exclusiveMaximum", "< "],
  ["minItems", "at least "],
  ["maxItems", "at most "],
  ["pattern", "like "],
];

/** What a type does not say. */
function noteOf(schema: JsonSchema): string {
  const parts: string[] = [];
  if (typeof schema["description"] === "string") parts.push(schema["description"]);
  for (const branch of [schema, ...((schema["anyOf"] as JsonSchema[] | undefined) ?? [])]) {
    for (const [key, text] of limits) {
      const value = branch[key];
      if (typeof value === "number" || typeof value === "string") parts.push(text + String(value));
    }
  }
  const standard = schema["default"];
  if (standard !== undefined && (typeof standard !== "object" || standard === null)) {
    parts.push(`default ${JSON.stringify(standard)}`);
  }
  return parts.length > 0 ? `<i>  // ${escape(parts.join("; "))}</i>` : "";
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
