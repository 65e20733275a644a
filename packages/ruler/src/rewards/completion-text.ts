import type { Trajectory } from "@hone/core";
import { codeBlocks } from "../code-fence.ts";

/** What the model said last; "" where it said nothing. */
export function completionText(trajectory: Trajectory): string {
  return lastAnswer(trajectory).content;
}

/**
 * What the model said last with its thinking before it. Servers that split the thinking off have cut
 * the tags with it: they are put back, so that a rule about them reads what was sampled.
 */
export function completionWithThinking(trajectory: Trajectory): string {
  const { content, reasoning } = lastAnswer(trajectory);
  return reasoning === null ? content : `<think>${reasoning}</think>${content}`;
}

function lastAnswer({ messages }: Trajectory): { content: string; reasoning: string | null } {
  const message = messages.findLast(({ role }) => role === "assistant");
  if (message?.role !== "assistant") return { content: "", reasoning: null };
  const { content, reasoning_content: reasoning } = message;
  const text = typeof content === "string" ? content : (content ?? []).map((p) => p.text).join("");
  return { content: text, reasoning: reasoning ?? null };
}

/** The text of the first `<answer>` on one line, as the GRPO tutorial takes it; null where there is none. */
export function taggedAnswer(text: string): string | null {
  // Line by line, and not as a pattern: one would go to the end of the line again from each tag that is open.
  for (const line of text.split(/[\n\r\u2028\u2029]/)) {
    const from = line.indexOf("<answer>");
    const to = from < 0 ? -1 : line.indexOf("</answer>", from);
    if (to >= 0) return line.slice(from + "<answer>".length, to).trim();
  }
  return null;
}

/** The last fenced block of code, or of one of these languages; null where there is none. */
export function fencedCode(text: string, languages?: readonly string[]): string | null {
  const block = codeBlocks(text).findLast(
    ({ language }) => !languages || languages.includes(language),
  );
  return block?.code ?? null;
}
