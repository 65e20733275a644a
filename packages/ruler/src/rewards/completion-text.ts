import type { Trajectory } from "@hone/core";

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
  return /<answer>(.*?)<\/answer>/.exec(text)?.[1]?.trim() ?? null;
}

/** The last fenced block of code, or of one of these languages; null where there is none. */
export function fencedCode(text: string, languages?: readonly string[]): string | null {
  const lines = text.split("\n");
  let found: string | null = null;
  let open: { mark: string; language: string; from: number } | null = null;
  for (const [index, line] of lines.entries()) {
    const [, mark = "", language = ""] =
      /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)\s*\S*\s*$/.exec(line) ?? [];
    if (open === null) {
      if (mark) open = { mark, language: language.toLowerCase(), from: index + 1 };
    } else if (mark && !language && mark.startsWith(open.mark)) {
      if (!languages || languages.includes(open.language)) {
        found = lines.slice(open.from, index).join("\n");
      }
      open = null;
    }
  }
  return found;
}
