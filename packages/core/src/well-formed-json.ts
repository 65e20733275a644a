/** Escapes between two steps. */
const escapesPerStep = 4_000;
const half = "\\ufffd";
const escapeLength = 6;

/**
 * JSON whose texts are all Unicode: half a surrogate pair, which any `slice()` of an emoji leaves, becomes
 * U+FFFD, as UTF-8 encoders have it. JSON writes such a half as an escape, and readers outside of
 * JavaScript stumble over it. Keys too.
 */
export function wellFormedJson(json: string): string {
  const steps = wellFormedSteps(json);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** The same in steps, for those who have other work to do between them: a text may be made of a million escapes. */
export function* wellFormedSteps(json: string): Generator<undefined, string, undefined> {
  if (!/\\u[dD][89a-fA-F]/.test(json)) return json;
  const done: string[] = [];
  let parts: string[] = [];
  let kept = 0;
  let seen = 0;
  for (let at = json.indexOf("\\"); at >= 0; at = json.indexOf("\\", at)) {
    const code = escapedAt(json, at);
    const isPair = isHigh(code) && isLow(escapedAt(json, at + escapeLength));
    if (!isPair && (isHigh(code) || isLow(code))) {
      parts.push(json.slice(kept, at), half);
      kept = at + escapeLength;
    }
    // What is no escape of a code unit is one of a single character, such as a backslash.
    at += code === null ? 2 : isPair ? 2 * escapeLength : escapeLength;
    seen += 1;
    if (seen % escapesPerStep > 0) continue;
    done.push(parts.join(""));
    parts = [];
    yield;
  }
  return [...done, ...parts, json.slice(kept)].join("");
}

/** The code unit of the escape that begins here; null where none does. */
function escapedAt(json: string, at: number): number | null {
  if (json[at] !== "\\" || json[at + 1] !== "u") return null;
  const digits = json.slice(at + 2, at + escapeLength);
  return /^[\da-fA-F]{4}$/.test(digits) ? Number.parseInt(digits, 16) : null;
}

const isHigh = (code: number | null): boolean => code !== null && code >= 0xd800 && code < 0xdc00;
const isLow = (code: number | null): boolean => code !== null && code >= 0xdc00 && code < 0xe000;
