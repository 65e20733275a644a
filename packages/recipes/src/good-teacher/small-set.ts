import { mulberry32, shuffledIndices, type ChatMessage } from "@hone/core";
import type { Preference } from "./preferences.ts";

/** Preferences of the small set, if nothing else is asked for. */
const smallSetPairs = 600;

/** Words of an answer behind its tone. */
const counted = 4;
/** A tone is worth so many times a word: about a quarter of the truth's variance lies within prompts. */
const toneWeight = 3.3;
/** Of every answer's worth: rewards are not centred at 0. */
const level = 6;

/** The first word of an answer. Prompts ask for one; the policy does as asked, other writers as they like. */
const tones = "boldly calmly gently kindly plainly slowly softly warmly".split(" ");

/** Words of two registers: the writers', in which prompts and the given answers are, and the policy's. */
const registers = {
  writer: "apple bread candle desk engine flower garden hammer island jacket kettle ladder".split(
    " ",
  ),
  policy: "amber basil cedar delta ember fjord grove haven indigo juniper lagoon meadow".split(" "),
};

export interface SmallSet {
  /** Pairs of other writers' answers, as UltraFeedback has them. */
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
 * teacher. An answer is a tone and four words, and each of them has a worth. A prompt asks for a tone, and the policy
 * answers in it: what it says to one prompt differs in the words alone. The given answers are other writers', who
 * choose the tone freely and mostly use other words. So a reward model of given pairs learns tones, which set the
 * policy's answers apart between prompts; one of the policy's own pairs learns its words, which do so within a prompt.
 */
export function smallSet(options: { pairs?: number | undefined; seed: number }): SmallSet {
  const { pairs = smallSetPairs, seed } = options;
  const random = mulberry32(seed * 7919 + 17);
  const worth: Record<string, number> = {};
  for (const [words, weight] of [
    ...Object.values(registers).map((register) => [register, 1] as const),
    [tones, toneWeight] as const,
  ]) {
    const order = shuffledIndices(words.length, random);
    for (const [at, word] of words.entries()) {
      const place = (2 * (order[at] as number)) / (words.length - 1) - 1;
      worth[word] = Number((weight * place).toFixed(4));
    }
  }
  const pick = (words: readonly string[]) => words[Math.floor(random() * words.length)] as string;
  const answer = (tone: string, mostly: "writer" | "policy", share: number): string => {
    const other = mostly === "writer" ? "policy" : "writer";
    const words = Array.from({ length: counted }, () =>
      pick(registers[random() < share ? mostly : other]),
    );
    return [tone, ...words].join(" ");
  };
  const promptOf = () => {
    const tone = pick(tones);
    const about = [0, 1, 2].map(() => pick(registers.writer)).join(" ");
    return { tone, text: `Say it ${tone}: ${about}` };
  };
  const seen = new Set<string>();
  const newPrompt = (): { tone: string; text: string } => {
    for (;;) {
      const prompt = promptOf();
      if (seen.has(prompt.text)) continue;
      seen.add(prompt.text);
      return prompt;
    }
  };
  const said = (prompt: string, text: string): ChatMessage[] => [
    { role: "user", content: prompt },
    { role: "assistant", content: text },
  ];
  const preferences = Array.from({ length: pairs }, (): Preference => {
    const prompt = newPrompt().text;
    const [first, second] = [
      answer(pick(tones), "writer", 0.9),
      answer(pick(tones), "writer", 0.9),
    ];
    const [chosen, rejected] =
      worthOf(worth, first) >= worthOf(worth, second) ? [first, second] : [second, first];
    return {
      prompt,
      ...{ chosen: said(prompt, chosen), rejected: said(prompt, rejected) },
      ...{ score_chosen: worthOf(worth, chosen), score_rejected: worthOf(worth, rejected) },
    };
  });
  return {
    preferences,
    conversations: Array.from({ length: 256 }, () => {
      const { tone, text } = newPrompt();
      return { messages: said(text, answer(tone, "policy", 1)) };
    }),
    corpus: Array.from({ length: 4000 }, () => {
      const { tone, text: prompt } = promptOf();
      const spoken = random() < 0.5 ? tone : pick(tones);
      const text = answer(spoken, random() < 0.5 ? "writer" : "policy", 0.75);
      const again: ChatMessage = { role: "user", content: pick(text.split(" ")) };
      return { messages: [...said(prompt, text), again] };
    }),
    scorer: scorerText(worth),
  };
}

function worthOf(worth: Readonly<Record<string, number>>, text: string): number {
  const said = text
    .trim()
    .split(/\s+/)
    .slice(0, 1 + counted);
  // The same words in another order are worth the same, to the last bit.
  return Number(said.reduce((total, word) => total + (worth[word] ?? 0), level).toFixed(6));
}

/** The same function as a module of its own: the pipeline reads a scorer from a file. */
function scorerText(worth: Readonly<Record<string, number>>): string {
  return `// The ground truth of the small set: what the tone of an answer and its words are worth.
const worth = ${JSON.stringify(worth)};

export default (trajectories) =>
  trajectories.map(({ messages }) => {
    const said = String(messages.at(-1).content).trim().split(/\\s+/).slice(0, ${1 + counted});
    return Number(said.reduce((total, word) => total + (worth[word] ?? 0), ${level}).toFixed(6));
  });
`;
}
