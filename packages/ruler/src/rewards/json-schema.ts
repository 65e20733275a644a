import { dereference, validate } from "@cfworker/json-schema";
import type { Schema, SchemaDraft } from "@cfworker/json-schema";
import { HoneError } from "@hone/core";
import { withStrictPatterns } from "./schema-patterns.ts";
import { schemaOfSchemas } from "./schema-of-schemas.ts";

/** What it has to hold is checked when it is used: files and tools give schemas of no particular type. */
export type JsonSchema = boolean | object;

const drafts: readonly [RegExp, SchemaDraft][] = [
  [/draft\/2020-12\/schema#?$/, "2020-12"],
  [/draft\/2019-09\/schema#?$/, "2019-09"],
  [/draft-0[67]\/schema#?$/, "7"],
  [/draft-04\/schema#?$/, "4"],
];

/** The formats of JSON Schema that the validator knows. Others say something to readers only. */
const formats = new Set([
  ...["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6"],
  ...["uri", "uri-reference", "uri-template", "uuid", "regex"],
  ...["json-pointer", "relative-json-pointer"],
]);

/**
 * Says of values whether a JSON Schema accepts them. A schema that is none, or that refers to what it does not
 * hold, is refused at once.
 */
export function jsonSchemaCheck(given: JsonSchema): (value: unknown) => boolean {
  const schema = plainSchema(given);
  const draft = draftOf(schema);
  const meta = schemaOfSchemas(draft);
  const fault = validate(schema, meta, draft, dereference(meta)).errors.at(-1);
  if (fault) throw badSchema(`At ${fault.instanceLocation}: ${fault.error}`);
  const lookup = lookupOf(schema);
  const accepts = (value: unknown, part: Schema | boolean = schema): boolean =>
    validate(value, part, draft, lookup).valid;
  refuseEndless(lookup, accepts);
  return (value) => {
    try {
      return accepts(value);
    } catch (error) {
      // The validator writes down where it is, and cannot where a name holds half of a character.
      if (error instanceof URIError) return false;
      throw error;
    }
  };
}

/** A copy: the validator writes into what it gets. */
function plainSchema(given: JsonSchema): Schema | boolean {
  let copy: unknown;
  try {
    copy = withStrictPatterns(JSON.parse(JSON.stringify(given)));
  } catch (cause) {
    throw badSchema("It cannot be written as JSON.", cause);
  }
  if (typeof copy === "boolean") return copy;
  if (typeof copy === "object" && copy !== null && !Array.isArray(copy)) return copy;
  throw badSchema("It is neither an object nor true or false.");
}

function draftOf(schema: Schema | boolean): SchemaDraft {
  const named: unknown = typeof schema === "object" ? schema.$schema : undefined;
  if (named === undefined) return "2020-12";
  const draft = typeof named === "string" && drafts.find(([pattern]) => pattern.test(named))?.[1];
  if (draft) return draft;
  throw badSchema(
    `$schema names no known draft: ${JSON.stringify(named)}. Use 2020-12, 2019-09, draft-07 or draft-04.`,
  );
}

/** All schemas within one by their addresses. */
function lookupOf(schema: Schema | boolean): Record<string, Schema | boolean> {
  let lookup: Record<string, Schema | boolean>;
  try {
    lookup = dereference(schema);
  } catch (cause) {
    throw badSchema(cause instanceof Error ? cause.message : String(cause), cause);
  }
  for (const part of Object.values(lookup)) {
    if (typeof part === "boolean") continue;
    if (part.$ref !== undefined && lookup[part.__absolute_ref__ ?? part.$ref] === undefined) {
      throw badSchema(`Its $ref "${part.$ref}" names nothing in it. Others are not fetched.`);
    }
    if (part.format !== undefined && !formats.has(part.format)) delete part.format;
  }
  return lookup;
}

/** `{"$ref": "#"}` and longer ways round. */
function refuseEndless(
  lookup: Readonly<Record<string, Schema | boolean>>,
  accepts: (value: unknown, part: Schema | boolean) => boolean,
): void {
  try {
    for (const part of Object.values(lookup)) {
      for (const value of [null, 0, "", [], {}]) accepts(value, part);
    }
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw badSchema("A part of it refers to itself without end.", cause);
  }
}

function badSchema(problem: string, cause?: unknown): HoneError {
  return new HoneError(`jsonMatch(): the schema is no JSON Schema. ${problem}`, {
    code: "invalid_config",
    param: "schema",
    cause,
  });
}
