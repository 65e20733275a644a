import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { collectAttempts } from "../../packages/ruler/src/prompt/attempts.ts";
import { promptParts, userMessage } from "../../packages/ruler/src/prompt/prompt.ts";
import { defaultRubric } from "../../packages/ruler/src/prompt/rubrics.ts";
import { estimateTokens } from "../../packages/ruler/src/prompt/token-estimate.ts";
import { orderOf, tasks } from "./groups.ts";

const hex = (bytes: number) => randomBytes(bytes).toString("hex");

/**
 * RULER's own prompts, made by RULER's own functions, with what each attempt is worth, in the order that is shown. The
 * first line is the system message, which they share.
 */
export async function writeCorpus(file: string, seed: number, count: number): Promise<void> {
  const drawn = tasks(seed);
  const options = { rubric: defaultRubric, tokenBudget: 100_000, countTokens: estimateTokens };
  const lines: string[] = [];
  for (let at = 0; at < count; at += 1) {
    const { messages, worth } = drawn.next().value;
    const set = collectAttempts(messages.map((of) => ({ messages: of, tools: null })));
    const keys = { fence: hex(8), ids: messages.map(() => hex(4)) };
    const parts = promptParts(set, keys, options);
    if (at === 0) lines.push(JSON.stringify({ system: parts.system }));
    const order = orderOf(seed + at);
    lines.push(
      JSON.stringify({
        user: userMessage(parts, order),
        shown: order.map((place) => ({
          id: keys.ids[place],
          answer: messages[place]?.at(-1)?.content,
          worth: worth[place],
        })),
      }),
    );
  }
  await writeFile(file, `${lines.join("\n")}\n`);
}
