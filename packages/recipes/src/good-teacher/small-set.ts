import { mulberry32, shuffledIndices, type ChatMessage } from "@hone/core";
import type { Preference } from "./preferences.ts";

/** Preferences of the small set, if nothing else is asked for. */
const smallSetPairs = 600;

/** How many words of an answer count; the answers of the small set have as many. */
const counted = 4;
/** What a prompt adds to the worth of every answer to it, beside `level`: so hard or easy it is. */
const promptWeight = 1.8;
const level = 4;

/** Words of two registers: the writer's, in which prompts and the given answers are, and the policy's. */
const registers = {
  writer: "apple bread candle desk engine flower garden hammer island jacket kettle ladder".split(
    " ",
  ),
  policy: "amber basil cedar delta ember fjord grove haven indigo juniper lagoon meadow".split(" "),
};

export interface SmallSet {
  /** Pairs of the writer's answers, as UltraFeedback has them. */
  preferences: Preference[];
  /** Conversations in the policy's register, for `sft`. */
  conversations: { messages: ChatMessage[] }[];
  /** What a base is pretrained on: answers in both registers, and then one of the words that were said, by whoever. */
  corpus: { messages: ChatMessage[] }[];
  /** The module text of the ground truth. */
  scorer: string;
}

/**
 * A set that a script makes, on which a base of a hundred thousand parameters shows what makes a reward model a good
 * teacher. A prompt names three of the writer's words, an answer has four words, and each word has a worth. The ground
 * truth is the worth of the answer's words, and an offset that only the prompt decides: within a prompt lies about a
 * quarter of its variance, as in the paper. The given pairs are in the writer's words, while the policy mostly uses
 * others: a reward model of given pairs alone knows little of what the policy says.
 */
export function smallSet(options: { pairs?: number | undefined; seed: number }): SmallSet {
  const { pairs = smallSetPairs, seed } = options;
  const random = mulberry32(seed * 7919 + 17);
  const worth: Record<string, number> = {};
  for (const words of Object.values(registers)) {
    const order = shuffledIndices(words.length, random);
    for (const [at, word] of words.entries()) {
      worth[word] = (2 * (order[at] as number)) / (words.length - 1) - 1;
    }
  }
  const pick = (words: readonly string[]) => words[Math.floor(random() * words.length)] as string;
  const answer = (mostly: "writer" | "policy", share: number): string => {
    const other = mostly === "writer" ? "policy" : "writer";
    return Array.from({ length: counted }, () =>
      pick(registers[random() < share ? mostly : other]),
    ).join(" ");
  };
  const promptOf = () => `Say four words: ${[0, 1, 2].map(() => pick(registers.writer)).join(" ")}`;
  const seen = new Set<string>();
  const newPrompt = (): string => {
    for (;;) {
      const text = promptOf();
      if (seen.has(text)) continue;
      seen.add(text);
      return text;
    }
  };
  const said = (prompt: string, text: string): ChatMessage[] => [
    { role: "user", content: prompt },
    { role: "assistant", content: text },
  ];
  const scoreOf = (prompt: string, text: string) => worthOf(worth, prompt, text);
  const preferences = Array.from({ length: pairs }, (): Preference => {
    const prompt = newPrompt();
    const [first, second] = [answer("writer", 0.9), answer("writer", 0.9)];
    const [chosen, rejected] =
      scoreOf(prompt, first) >= scoreOf(prompt, second) ? [first, second] : [second, first];
    return {
      prompt,
      ...{ chosen: said(prompt, chosen), rejected: said(prompt, rejected) },
      ...{ score_chosen: scoreOf(prompt, chosen), score_rejected: scoreOf(prompt, rejected) },
    };
  });
  return {
    preferences,
    conversations: Array.from({ length: 256 }, () => ({
      messages: said(newPrompt(), answer("policy", 1)),
    })),
    corpus: Array.from({ length: 4000 }, () => {
      const prompt = promptOf();
      const text = answer(random() < 0.5 ? "writer" : "policy", 0.75);
      const again: ChatMessage = {
        role: "user",
        content: pick([...wordsOf(prompt), ...wordsOf(text)]),
      };
      return { messages: [...said(prompt, text), again] };
    }),
    scorer: scorerText(worth),
  };
}

/** Those that have a worth: none of "Say four words:". */
function wordsOf(text: string): string[] {
  return text.split(" ").filter((word) => Object.values(registers).flat().includes(word));
}

function worthOf(worth: Readonly<Record<string, number>>, prompt: string, text: string): number {
  const sum = (words: readonly string[]) =>
    words.reduce((total, word) => total + (worth[word] ?? 0), 0);
  const said = text.trim().split(/\s+/).slice(0, counted);
  // The same words in another order are worth the same, to the last bit.
  return Number((level + promptWeight * sum(prompt.split(" ")) + sum(said)).toFixed(6));
}

/** The same function as a module of its own: the pipeline reads a scorer from a file. */
function scorerText(worth: Readonly<Record<string, number>>): string {
  return `// The ground truth of the small set: what the words of an answer are worth, and what its prompt adds.
const worth = ${JSON.stringify(worth)};
const sum = (words) => words.reduce((total, word) => total + (worth[word] ?? 0), 0);

export default (trajectories) =>
  trajectories.map(({ messages }) => {
    const [prompt, answer] = [messages[0], messages.at(-1)].map(({ content }) => String(content));
    const said = answer.trim().split(/\\s+/).slice(0, ${counted});
    return Number((${level} + ${promptWeight} * sum(prompt.split(" ")) + sum(said)).toFixed(6));
  });
`;
}
