import { hiddenKey, HoneError } from "@hone/core";

/** Objects that are looked at; one that holds more is not looked through. */
const mostObjects = 5_000;

const shortestKey = 6;

export function textWithoutKey(text: string, apiKey: string): string {
  // A word such as "none", which servers that need no key are given, is no secret.
  return apiKey.length < shortestKey ? text : text.replaceAll(apiKey, hiddenKey);
}

/**
 * The error itself, unless the key is anywhere in it: HTTP libraries hang the request with its headers on what
 * they throw. Then a copy with what tells of the failure, and without the rest.
 */
export function errorWithoutKey(error: unknown, apiKey: string): unknown {
  if (apiKey.length < shortestKey || !holds(error, apiKey)) return error;
  const clean = (text: string) => textWithoutKey(text, apiKey);
  if (HoneError.isInstance(error)) {
    const { code, param, status } = error;
    const cause = errorWithoutKey(error.cause, apiKey);
    const copy = new HoneError(clean(error.message), {
      ...{ code, status, cause },
      param: param === null ? undefined : clean(param),
    });
    if (error.stack) copy.stack = clean(error.stack);
    return copy;
  }
  if (!(error instanceof Error)) return typeof error === "string" ? clean(error) : hiddenKey;
  const cause = error.cause === undefined ? undefined : errorWithoutKey(error.cause, apiKey);
  const copy = new Error(clean(error.message), cause === undefined ? undefined : { cause });
  Object.defineProperty(copy, "name", { value: clean(error.name), configurable: true });
  if (error.stack) copy.stack = clean(error.stack);
  for (const field of ["code", "status", "statusCode"]) {
    const value: unknown = Object.getOwnPropertyDescriptor(error, field)?.value;
    if (typeof value === "number") Object.assign(copy, { [field]: value });
    if (typeof value === "string") Object.assign(copy, { [field]: clean(value) });
  }
  return copy;
}

function holds(root: unknown, apiKey: string): boolean {
  const seen = new Set<object>();
  const waiting: unknown[] = [root];
  while (waiting.length > 0) {
    const value = waiting.pop();
    if (typeof value === "string" && value.includes(apiKey)) return true;
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    if (ArrayBuffer.isView(value)) continue;
    seen.add(value);
    if (seen.size > mostObjects) return true;
    for (const key of Reflect.ownKeys(value)) {
      // A getter is not called: what it would show is not printed either.
      waiting.push(key, Object.getOwnPropertyDescriptor(value, key)?.value);
    }
    // What these hold stands in no field of theirs, and is printed.
    if (value instanceof Headers || value instanceof Map) waiting.push(...[...value].flat());
    else if (value instanceof Set) waiting.push(...value);
    else if (value instanceof Request || value instanceof Response) waiting.push(value.headers);
  }
  return false;
}
