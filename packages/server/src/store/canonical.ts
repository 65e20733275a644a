import { createHash } from "node:crypto";
import { createPauses } from "./pauses.ts";

/** SHA-256 of a JSON value that does not depend on the order of keys. */
export function canonicalSha256(value: unknown): string {
  return createHash("sha256").update(canonicalJson(value)).digest("hex");
}

/** Values that stand deeper are hashed at once. An operation's rollouts stand in groups, in a list, in the operation. */
const deepestPart = 5;

/**
 * The same in pieces, so that others have their turn in between: an operation may name tens of thousands of
 * rollouts.
 */
export async function canonicalSha256InTurns(value: unknown): Promise<string> {
  const hash = createHash("sha256");
  const pauses = createPauses();
  for (const part of canonicalParts(value, deepestPart)) {
    hash.update(part);
    await pauses.due();
  }
  return hash.digest("hex");
}

function* canonicalParts(value: unknown, depth: number): Generator<string, void, undefined> {
  if (depth === 0 || typeof value !== "object" || value === null) {
    yield canonicalJson(value);
  } else if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) {
      yield index === 0 ? "[" : ",";
      yield* canonicalParts(item, depth - 1);
    }
    yield value.length === 0 ? "[]" : "]";
  } else {
    let opening = "{";
    for (const [key, item] of Object.entries(withSortedKeys(value))) {
      if (item === undefined) continue;
      yield `${opening}${JSON.stringify(key)}:`;
      yield* canonicalParts(item, depth - 1);
      opening = ",";
    }
    yield opening === "{" ? "{}" : "}";
  }
}

/** JSON that does not depend on the order of keys. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(sorted(value));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return withSortedKeys(value, sorted);
}

function withSortedKeys(
  value: object,
  map: (item: unknown) => unknown = (item) => item,
): Record<string, unknown> {
  // No prototype: a key named `__proto__` is data like any other.
  const copy = Object.create(null) as Record<string, unknown>;
  for (const key of Object.keys(value).sort()) {
    copy[key] = map((value as Record<string, unknown>)[key]);
  }
  return copy;
}
