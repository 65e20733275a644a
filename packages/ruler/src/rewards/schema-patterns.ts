/** What stands there is data, whatever its keys are called. */
const values = new Set(["const", "enum", "default", "examples"]);

/**
 * A schema whose patterns a regular expression of the `u` kind reads too, as the validator makes them. Many
 * schemas are written for the other kind, which lets any sign be escaped: `\-`, `\@`.
 */
export function withStrictPatterns(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(withStrictPatterns);
  if (typeof schema !== "object" || schema === null) return schema;
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]: [string, unknown]) => {
      if (values.has(key)) return [key, value];
      if (key === "pattern" && typeof value === "string") return [key, strictPattern(value)];
      if (key === "patternProperties" && typeof value === "object" && value !== null) {
        const entries = Object.entries(value).map(([pattern, part]: [string, unknown]) => [
          strictPattern(pattern),
          withStrictPatterns(part),
        ]);
        return [key, Object.fromEntries(entries)];
      }
      return [key, withStrictPatterns(value)];
    }),
  );
}

/** As it is where it compiles, or where no dropped escape makes it compile: then it is refused. */
export function strictPattern(pattern: string): string {
  if (compiles(pattern, "u") || !compiles(pattern, "")) return pattern;
  let strict = "";
  let inClass = false;
  for (let at = 0; at < pattern.length; at += 1) {
    const sign = pattern[at] ?? "";
    if (sign !== "\\") {
      if (sign === "[") inClass = true;
      else if (sign === "]") inClass = false;
      strict += sign;
      continue;
    }
    at += 1;
    const escaped = pattern[at] ?? "";
    const needed = /[\w^$\\.*+?()[\]{}|/]/.test(escaped) || (inClass && escaped === "-");
    strict += needed ? `\\${escaped}` : escaped;
  }
  return compiles(strict, "u") ? strict : pattern;
}

function compiles(pattern: string, flags: string): boolean {
  try {
    return new RegExp(pattern, flags) instanceof RegExp;
  } catch {
    return false;
  }
}
