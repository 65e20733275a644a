/** Escapes that are looked at in one turn. */
const escapesPerTurn = 20_000;
const half = "\\ufffd";
const escapeLength = 6;

/** What core's `wellFormedJson` makes of a text, in turns: a body may be made of a million escapes. */
export async function wellFormed(json: string, pause: () => Promise<unknown>): Promise<string> {
  if (!/\\u[dD][89a-fA-F]/.test(json)) return json;
  const turns: string[] = [];
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
    at += code === null ? 2 : isPair ? 2 * escapeLength : escapeLength;
    seen += 1;
    if (seen % escapesPerTurn > 0) continue;
    turns.push(parts.join(""));
    parts = [];
    await pause();
  }
  return [...turns, ...parts, json.slice(kept)].join("");
}

/** The code unit of the escape that begins here; null where none does. */
function escapedAt(json: string, at: number): number | null {
  if (json[at] !== "\\" || json[at + 1] !== "u") return null;
  const digits = json.slice(at + 2, at + escapeLength);
  return /^[\da-fA-F]{4}$/.test(digits) ? Number.parseInt(digits, 16) : null;
}

const isHigh = (code: number | null): boolean => code !== null && code >= 0xd800 && code < 0xdc00;
const isLow = (code: number | null): boolean => code !== null && code >= 0xdc00 && code < 0xe000;
