import { HoneError } from "./errors.ts";

/** Options are checked by name at run time too: a misspelt one must not be ignored in silence. */
export function refuseUnknownOptions(
  where: string,
  options: object,
  known: readonly string[],
): void {
  requireObject(where, options, `an object with ${known.join(", ")}`);
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw new HoneError(`${where} has no option "${key}". It knows: ${known.join(", ")}.`, {
      code: "unsupported_parameter",
      param: key,
    });
  }
}

/** Arrays, promises and maps are objects that hold none of the options: they would pass as empty. */
export function requireObject(
  where: string,
  value: unknown,
  wanted: string,
  param?: string,
): asserts value is object {
  const isOne =
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !isPromise(value) &&
    !(value instanceof Map || value instanceof Set);
  if (!isOne) throw wrongKind(where, wanted, value, param);
}

/** The error of an argument of another kind: says what was given, and never a long text of it. */
export function wrongKind(
  where: string,
  wanted: string,
  given: unknown,
  param?: string,
): HoneError {
  const advice = isPromise(given) ? ": await it first" : "";
  return new HoneError(`${where} takes ${wanted}, not ${kindOf(given)}${advice}.`, {
    code: "invalid_request",
    param,
  });
}

/** In words, for messages. Texts are cut; no content of an object is shown. */
export function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value === "string") return value ? `the text ${JSON.stringify(cut(value))}` : '""';
  if (typeof value === "number" || typeof value === "bigint") return `the number ${value}`;
  if (typeof value === "boolean") return String(value);
  if (typeof value === "symbol") return "a symbol";
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return "a list";
  if (isPromise(value)) return "a promise";
  const name: unknown = (value as { constructor?: { name?: unknown } }).constructor?.name;
  return typeof name === "string" && name && name !== "Object" ? `a ${name}` : "an object";
}

function isPromise(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (value as { then?: unknown }).then === "function"
  );
}

function cut(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
