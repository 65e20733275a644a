import { writeFile } from "node:fs/promises";
import { messageText, mulberry32, shuffledIndices, type ChatMessage } from "@hone/core";
import { collectAttempts } from "../../packages/ruler/src/prompt/attempts.ts";
import { promptParts, userMessage } from "../../packages/ruler/src/prompt/prompt.ts";
import { defaultRubric } from "../../packages/ruler/src/prompt/rubrics.ts";
import { estimateTokens } from "../../packages/ruler/src/prompt/token-estimate.ts";
import { tasks } from "./groups.ts";

/** What RULER asks of one group, and what the attempts are worth, in the order in which they are shown. */
export interface Asked {
  system: string;
  user: string;
  shown: { id: string; answer: string; worth: number }[];
}

/** RULER's own questions, made by RULER's own functions, about groups that the seed draws. */
export function questions(seed: number, count: number): Asked[] {
  const drawn = tasks(seed);
  const random = mulberry32(seed + 1);
  const hex = (digits: number) =>
    Array.from({ length: digits }, () => Math.floor(random() * 16).toString(16)).join("");
  const options = { rubric: defaultRubric, tokenBudget: 100_000, countTokens: estimateTokens };
  return Array.from({ length: count }, () => {
    const { messages, worth } = drawn.next().value;
    const set = collectAttempts(messages.map((of) => ({ messages: of, tools: null })));
    const ids = messages.map(() => hex(8));
    const parts = promptParts(set, { fence: hex(16), ids }, options);
    const order = shuffledIndices(messages.length, random);
    const shown = order.map((at) => ({
      ...{ id: ids[at]!, answer: messageText(messages[at]!.at(-1)!), worth: worth[at]! },
    }));
    return { system: parts.system, user: userMessage(parts, order), shown };
  });
}

/** For the base: a question a line, after a first line with the system message, which all share. */
export async function writeCorpus(file: string, seed: number, count: number): Promise<void> {
  const asked = questions(seed, count);
  const lines = asked.map(({ user, shown }) => JSON.stringify({ user, shown }));
  await writeFile(file, [JSON.stringify({ system: asked[0]!.system }), ...lines, ""].join("\n"));
}

/** Questions with the right answer: a quarter for each word that is of the kind. */
export function rightAnswers(
  seed: number,
  count: number,
  shuffleWorth: boolean,
): { messages: ChatMessage[] }[] {
  const asked = questions(seed, count);
  const all = asked.flatMap(({ shown }) => shown.map(({ worth }) => worth));
  const order = shuffledIndices(all.length, mulberry32(seed + 2));
  const worthAt = (at: number) => all[shuffleWorth ? order[at]! : at]!;
  return asked.map(({ system, user, shown }, group) => {
    const entries = shown.map(({ id }, at) => {
      const score = worthAt(group * shown.length + at) / 4;
      // As the base writes numbers.
      const written = Number.isInteger(score) ? score.toFixed(1) : String(score);
      return `{"id": "${id}", "explanation": "", "score": ${written}}`;
    });
    return {
      messages: [
        { role: "system", content: system },
        { role: "user", content: user },
        { role: "assistant", content: `{"scores": [${entries.join(", ")}]}` },
      ],
    };
  });
}
