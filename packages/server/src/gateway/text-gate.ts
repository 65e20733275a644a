/**
 * Decides how much of the sampled text may go out before it is parsed. Content passes as it comes;
 * from the first place where a marker of a tool call or of reasoning may begin, text is held.
 * White space is held until something follows it, because parsers trim it around markers.
 */
export interface TextGate {
  /** What may go out now that this text was sampled. */
  push(text: string): string;
  /**
   * True when the answer begins with white space, which only a parse can tell to be content or not;
   * nothing passes before `decide`.
   */
  readonly undecided: boolean;
  /** `keep`: the parsed content begins with white space too. Returns what may go out now. */
  decide(keep: boolean): string;
  /** Everything that has gone out so far. */
  readonly passed: string;
}

export function createTextGate(markers: readonly string[]): TextGate {
  // An empty marker means that the renderer cannot tell where a marker begins, so all text is held.
  let closed = markers.includes("");
  let held = "";
  let passed = "";
  let decided = false;

  function release(): string {
    if (closed) return "";
    const marker = firstMarker(held, markers);
    const safe = marker >= 0 ? marker : held.length - partialMarker(held, markers);
    closed = marker >= 0;
    const text = held.slice(0, safe).trimEnd();
    if (!decided && /^\s/.test(text)) {
      closed = false;
      return "";
    }
    if (text) decided = true;
    held = held.slice(text.length);
    passed += text;
    return text;
  }

  return {
    push(text) {
      held += text;
      return release();
    },
    get undecided() {
      return !closed && !decided && /^\s+\S/.test(held);
    },
    decide(keep) {
      decided = true;
      if (!keep) held = held.trimStart();
      return release();
    },
    get passed() {
      return passed;
    },
  };
}

function firstMarker(text: string, markers: readonly string[]): number {
  const found = markers.map((marker) => text.indexOf(marker)).filter((at) => at >= 0);
  return found.length > 0 ? Math.min(...found) : -1;
}

/** Length of the longest end of the text with which a marker begins. */
function partialMarker(text: string, markers: readonly string[]): number {
  let longest = 0;
  for (const marker of markers) {
    for (let length = Math.min(marker.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(marker.slice(0, length))) longest = length;
    }
  }
  return longest;
}
