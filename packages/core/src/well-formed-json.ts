const replacement = "\\ufffd";

/**
 * The escapes of JSON that stand for half a character, and those that stand for a whole one. The
 * lookbehind begins at the first of several backslashes, of which each two are a backslash.
 */
const surrogates =
  /(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|\\u[dD][89a-fA-F][\da-fA-F]{2})/g;
const pairLength = 12;

/**
 * JSON whose texts are all Unicode: half a surrogate pair, which any `slice()` of an emoji leaves, becomes
 * U+FFFD, as UTF-8 encoders have it. JSON writes such a half as an escape, and readers outside of
 * JavaScript stumble over it. Keys too.
 */
export function wellFormedJson(json: string): string {
  if (!/\\u[dD][89a-fA-F]/.test(json)) return json;
  // A pair may begin where the half before it ended.
  return json.replace(
    surrogates,
    (_, before: string, found: string) =>
      before + (found.length === pairLength ? found : replacement),
  );
}
