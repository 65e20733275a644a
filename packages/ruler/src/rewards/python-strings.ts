/** What Python's tokenizer refuses within a literal, and the parser that we have lets pass. */

export interface PythonString {
  /** Where it ends, behind the closing quote. */
  end: number;
  kind: "text" | "bytes";
  problem: string | null;
}

/** The literal whose quote stands at `from`, behind a prefix such as `rb`. */
export function readString(code: string, from: number, prefix: string): PythonString {
  const letters = prefix.toLowerCase();
  const kind = letters.includes("b") ? "bytes" : "text";
  const single = code[from] as string;
  const quote = code.startsWith(single.repeat(3), from) ? single.repeat(3) : single;
  const begin = from + quote.length;
  let at = begin;
  while (at < code.length && !code.startsWith(quote, at)) {
    if (quote.length === 1 && /[\r\n]/.test(code[at] as string)) break;
    if (code[at] !== "\\") at += 1;
    else at += code[at + 1] === "\r" && code[at + 2] === "\n" ? 3 : 2;
  }
  const end = at + quote.length;
  if (!code.startsWith(quote, at)) return { end, kind, problem: "unterminated string literal" };
  const text = code.slice(begin, at);
  const problem =
    kind === "bytes" && hasNonAscii(text)
      ? "bytes can only contain ASCII literal characters"
      : ((letters.includes("r") ? null : escapeProblem(text, kind)) ??
        (letters.includes("f") ? braceProblem(text) : null));
  return { end, kind, problem };
}

function hasNonAscii(text: string): boolean {
  for (let at = 0; at < text.length; at += 1) if (text.charCodeAt(at) > 127) return true;
  return false;
}

const escapes =
  /\\(?:x([0-9a-fA-F]{0,2})|u([0-9a-fA-F]{0,4})|U([0-9a-fA-F]{0,8})|N(\{[^}]+\})?|[\s\S])/g;

function escapeProblem(text: string, kind: PythonString["kind"]): string | null {
  for (const [whole, x, u, wide, name] of text.matchAll(escapes)) {
    if (x !== undefined && x.length < 2) return "invalid \\x escape";
    if (kind === "bytes") continue;
    const isShort = (u !== undefined && u.length < 4) || (wide !== undefined && wide.length < 8);
    if (isShort || Number.parseInt(wide ?? "0", 16) > 0x10ffff) return "invalid \\u escape";
    if (whole.startsWith("\\N") && name === undefined) return "malformed \\N character escape";
  }
  return null;
}

/**
 * A `}` that closes nothing. A quote of the same kind may stand within braces (Python 3.12): then the literal has not
 * ended here, and nothing is said of it.
 */
function braceProblem(text: string): string | null {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (depth === 0 && char === "\\" && text[at + 1] === "N") {
      const close = text.indexOf("}", at);
      at = close < 0 ? text.length : close;
    } else if (char === "{") {
      if (depth === 0 && text[at + 1] === "{") at += 1;
      else depth += 1;
    } else if (char === "}") {
      if (depth > 0) depth -= 1;
      else if (text[at + 1] === "}") at += 1;
      else return "f-string: single '}' is not allowed";
    }
  }
  return null;
}
