import { hiddenKey } from "@hone/core";

/** Shorter ones are words such as "none" rather than keys, and would take letters out of any text. */
const shortest = 6;

/** A text without the keys in it. */
export function redactText(text: string, keys: readonly string[]): string {
  return keys
    .filter((key) => key.length >= shortest)
    .sort((a, b) => b.length - a.length)
    .reduce((clean, key) => clean.replaceAll(key, hiddenKey), text);
}

/**
 * A copy of an error for `cause`, without the keys in it: what a provider answers may repeat the key
 * that it was sent, and a log prints causes in full. Headers and requests are left out.
 */
export function redactError(error: unknown, keys: readonly string[], depth = 0): unknown {
  if (!(error instanceof Error)) return redactValue(error, keys, depth);
  const copy = new Error(redactText(error.message, keys));
  const fields: Record<string, unknown> = {
    name: redactText(error.name === "Error" ? error.constructor.name : error.name, keys),
    stack: redactText(error.stack ?? "", keys),
  };
  if (error.cause !== undefined && depth < 5) {
    fields["cause"] = redactError(error.cause, keys, depth + 1);
  }
  const own = error as unknown as Record<string, unknown>;
  for (const name of ["code", "type", "param", "status", "requestID", "error"]) {
    if (own[name] !== undefined) fields[name] = redactValue(own[name], keys, depth);
  }
  for (const [name, value] of Object.entries(fields)) {
    const enumerable = !["name", "stack", "cause"].includes(name);
    Object.defineProperty(copy, name, { value, enumerable, configurable: true, writable: true });
  }
  return copy;
}

function redactValue(value: unknown, keys: readonly string[], depth: number): unknown {
  if (typeof value === "string") return redactText(value, keys);
  if (typeof value !== "object" || value === null) return value;
  // What is deeper than this explains no error.
  if (depth > 5) return "[…]";
  if (Array.isArray(value)) return value.map((item) => redactValue(item, keys, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [
      redactText(name, keys),
      redactValue(item, keys, depth + 1),
    ]),
  );
}
