import { readFileSync } from "node:fs";
import { mulberry32, shuffledIndices, messageText } from "@hone/core";
import type { ShownCase } from "@hone/recipes";

export const kinds = JSON.parse(
  readFileSync(new URL("words.json", import.meta.url), "utf8"),
) as Record<string, string[]>;

/** Four words, so many of which are of the kind: that many marks the answer deserves. */
export function answer(kind: string, right: number, random: () => number): string {
  const draw = (words: readonly string[], count: number) =>
    shuffledIndices(words.length, random)
      .slice(0, count)
      .map((at) => words[at] as string);
  const others = Object.entries(kinds).flatMap(([other, words]) => (other === kind ? [] : words));
  const words = [...draw(kinds[kind] ?? [], right), ...draw(others, 4 - right)];
  return draw(words, 4).join(" ");
}

/** Conversations with labelled answers, in OpenJudge's schema: three with marks, or two with a preference. */
export function judgeData(mode: "pointwise" | "pairwise", count: number, seed: number): object[] {
  const random = mulberry32(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  return Array.from({ length: count }, (_, at) => {
    const kind = Object.keys(kinds)[below(5)] as string;
    // A number makes each conversation another one.
    const number = String(at).padStart(4, "0").split("").join(" ");
    const marks = Array.from({ length: mode === "pointwise" ? 3 : 2 }, () => below(5));
    const [a = 0, b = 0] = marks;
    const preference = a === b ? "tie" : a > b ? "A" : "B";
    return {
      input: [{ role: "user", content: `four ${kind} ${number}` }],
      output: marks.map((helpfulness) => ({
        answer: {
          role: "assistant",
          content: answer(kind, helpfulness, random),
          label: mode === "pointwise" ? { helpfulness } : { preference },
        },
      })),
    };
  });
}

/** The short form in which the base has read judgements. */
export function shortPrompt({ mode, input, answers }: ShownCase) {
  const [, kind = ""] = input
    .map((message) => messageText(message as never))
    .join("")
    .split(" ");
  const word = mode === "pointwise" ? "score" : "better";
  return [{ role: "user" as const, content: [`${word} ${kind}`, ...answers].join("\n") }];
}
