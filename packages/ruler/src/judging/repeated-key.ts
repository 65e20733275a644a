/** Strings, with the colon where they are keys, and what opens and closes. */
const tokens = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|[{}[\]]/g;

/**
 * The first key that an object of this valid JSON has twice; null where there is none. `JSON.parse`
 * lets the last one win, another reader the first: such a text does not say one thing.
 */
export function repeatedKey(json: string): string | null {
  // The keys of each object that is open; null for an array.
  const open: (Set<string> | null)[] = [];
  for (const [token, colon] of json.matchAll(tokens)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(null);
    else if (token === "}" || token === "]") open.pop();
    else if (colon !== undefined) {
      const key = JSON.parse(token.slice(0, -colon.length)) as string;
      const keys = open.at(-1);
      if (keys?.has(key)) return key;
      keys?.add(key);
    }
  }
  return null;
}
