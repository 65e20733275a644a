import type { Schema, SchemaDraft } from "@cfworker/json-schema";

const part = { $ref: "#" };
const text = { type: "string" } as const;
const texts = { type: "array", items: text } as const;
const parts = { type: "array", items: part, minItems: 1 } as const;
const partsByName = { type: "object", additionalProperties: part } as const;
const count = { type: "integer", minimum: 0 } as const;
const number = { type: "number" } as const;
const pattern = { type: "string", format: "regex" } as const;
const type = { enum: ["array", "boolean", "integer", "null", "number", "object", "string"] };

/**
 * What a JSON Schema is, as a JSON Schema. The one that a draft publishes is several files that refer to each other
 * by $dynamicRef, which the validator does not know; this says the same of the keywords that it does know.
 */
export function schemaOfSchemas(draft: SchemaDraft): Schema {
  const limit = draft === "4" ? { type: "boolean" } : number;
  return {
    type: ["object", "boolean"],
    properties: {
      $id: text,
      $ref: text,
      $anchor: text,
      $recursiveRef: { const: "#" },
      // Nothing would come of it.
      $dynamicRef: false,
      $defs: partsByName,
      definitions: partsByName,
      type: { anyOf: [type, { type: "array", items: type, minItems: 1 }] },
      enum: { type: "array", minItems: 1 },
      ...all(["allOf", "anyOf", "oneOf"], parts),
      ...all(["not", "if", "then", "else"], part),
      format: text,
      properties: partsByName,
      patternProperties: { ...partsByName, propertyNames: pattern },
      additionalProperties: part,
      unevaluatedProperties: part,
      propertyNames: part,
      required: texts,
      ...all(["minProperties", "maxProperties"], count),
      dependentRequired: { type: "object", additionalProperties: texts },
      dependentSchemas: partsByName,
      dependencies: { type: "object", additionalProperties: { anyOf: [part, texts] } },
      prefixItems: parts,
      // A list of schemas has been prefixItems since 2020-12.
      items: draft === "2020-12" ? part : { anyOf: [part, { type: "array", items: part }] },
      ...all(["additionalItems", "unevaluatedItems", "contains"], part),
      ...all(["minItems", "maxItems", "minContains", "maxContains"], count),
      uniqueItems: { type: "boolean" },
      ...all(["minimum", "maximum"], number),
      ...all(["exclusiveMinimum", "exclusiveMaximum"], limit),
      multipleOf: { type: "number", exclusiveMinimum: draft === "4" ? true : 0, minimum: 0 },
      ...all(["minLength", "maxLength"], count),
      pattern,
    },
  };
}

function all(keywords: readonly string[], schema: object): Record<string, object> {
  return Object.fromEntries(keywords.map((keyword) => [keyword, schema]));
}
