import type { Preference } from "./record.ts";

/** Reads what a judge answered; null where it cannot be read. */
export interface VerdictReader {
  pointwise: (text: string) => number | null;
  pairwise: (text: string) => Preference | null;
}

/**
 * What stands after the thoughts. A thought that never ends has no answer behind it: a tag within it is none.
 */
function afterThoughts(text: string): string {
  const end = text.lastIndexOf("</think>");
  const rest = end < 0 ? text : text.slice(end + "</think>".length);
  return rest.includes("<think>") ? "" : rest;
}

/** The content of the one tag of that name. Two of them are two answers, and so none. */
function only(text: string, tag: string): string | null {
  const found = [...afterThoughts(text).matchAll(new RegExp(`<${tag}>([^<]*)</${tag}>`, "g"))];
  return found.length === 1 ? (found[0]?.[1]?.trim() ?? null) : null;
}

/** Exactly one `<score>` with a whole number from 0 to 4; exactly one `<better>` with A, B or tie. */
export const strictVerdicts: VerdictReader = {
  pointwise(text) {
    const content = only(text, "score");
    return content !== null && /^[0-4]$/.test(content) ? Number(content) : null;
  },
  pairwise(text) {
    const content = only(text, "better");
    return content === "A" || content === "B" || content === "tie" ? content : null;
  },
};

/**
 * As OpenJudge's reward functions read an answer, credit for what cannot be read included: without a tag, or with 10,
 * a score is 0; −1 is 1; and a preference is guessed from words in the last five lines.
 */
export const openJudgeVerdicts: VerdictReader = {
  pointwise(text) {
    const [, content = ""] = /<score>([\s\S]*?)<\/score>/.exec(withoutThoughts(text)) ?? [];
    const [digits = ""] = /\d+/.exec(content) ?? [];
    const score = digits === "" ? 0 : Number(digits);
    return score <= 4 ? score : 0;
  },
  pairwise(text) {
    const rest = withoutThoughts(text);
    const tagged = /<better>([\s\S]*?)<\/better>/.exec(rest)?.[1];
    const said = tagged === undefined ? null : taggedPreference(tagged.trim().toUpperCase());
    if (said !== null) return said;
    for (const line of rest.trim().split("\n").slice(-5).toReversed()) {
      const word = line.trim().toUpperCase();
      if (word === "A" || /(RESPONSE|ANSWER) A/.test(word)) return "A";
      if (word === "B" || /(RESPONSE|ANSWER) B/.test(word)) return "B";
      if (/TIE|EQUAL/.test(word)) return "tie";
    }
    return null;
  },
};

function taggedPreference(word: string): Preference | null {
  if (word === "TIE") return "tie";
  const [a, b] = [word.includes("A"), word.includes("B")];
  if (a && b) return "tie";
  if (a || b) return a ? "A" : "B";
  return word.includes("TIE") ? "tie" : null;
}

function withoutThoughts(text: string): string {
  return text
    .replaceAll(/<think>[\s\S]*?<\/think>/gi, "")
    .replaceAll(/\n\s*\n/g, "\n\n")
    .trim();
}

/** For labels of 0 and 1 only the very label counts; for the others the distance does. */
export function pointwiseReward(said: number | null, label: number): number {
  if (said === null) return 0;
  return label <= 1 ? Number(said === label) : 1 - Math.abs(said - label) / 4;
}

export function pairwiseReward(said: Preference | null, preference: Preference): number {
  return Number(said === preference);
}

/** The same preference when the two answers are shown the other way round. */
export function swapped(preference: Preference): Preference {
  return preference === "tie" ? "tie" : preference === "A" ? "B" : "A";
}
