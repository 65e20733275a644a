import { messageText, type Trajectory } from "@hone/core";
import { codeBlocks } from "../code-fence.ts";

/** What the model said last; "" where it said nothing. */
export function completionText(trajectory: Trajectory): string {
  return lastAnswer(trajectory).content;
}

/**
 * What the model said last with its thinking before it, as it was sampled. Where that is not known (another
 * provider's model, an older record) the thinking is put back between its tags.
 */
export function completionWithThinking(trajectory: Trajectory): string {
  return sampledText(trajectory) ?? lastAnswer(trajectory).rebuilt;
}

/** The same for a rule about the form: null where the server sampled the answer and could not say how. */
export function completionAsSampled(trajectory: Trajectory): string | null {
  const text = sampledText(trajectory);
  return text === undefined ? lastAnswer(trajectory).rebuilt : text;
}

/** undefined: the last answer is none that was sampled on our own server. */
function sampledText({ messages, turns = [], policy }: Trajectory): string | null | undefined {
  const place = messages.findLastIndex(({ role }) => role === "assistant");
  const turn = turns.findLast(({ message }) => message === place);
  return turn && (turn.text ?? (policy === null ? undefined : null));
}

function lastAnswer({ messages, turns = [] }: Trajectory): { content: string; rebuilt: string } {
  const place = messages.findLastIndex(({ role }) => role === "assistant");
  const message = messages[place];
  if (message?.role !== "assistant") return { content: "", rebuilt: "" };
  const { reasoning_content: reasoning } = message;
  const content = messageText(message);
  if (reasoning === null || reasoning === undefined) return { content, rebuilt: content };
  // A thought with nothing behind it, in an answer that was cut, was not closed: no tag is made up for it.
  const cut = turns.findLast((turn) => turn.message === place)?.finish_reason === "length";
  const hasMore = content !== "" || (message.tool_calls?.length ?? 0) > 0;
  if (!hasMore || (cut && content.trim() === ""))
    return { content, rebuilt: `<think>${reasoning}` };
  // Servers that split the thinking off take the line end behind it along.
  const gap = content === "" || /^\s/.test(content) ? "" : "\n";
  return { content, rebuilt: `<think>${reasoning}</think>${gap}${content}` };
}

const openTag = "<answer>";
const closeTag = "</answer>";

/**
 * The text in the first `<answer>…</answer>`, without the white space around it; null where there is none. It may
 * stand on lines of its own.
 */
export function taggedAnswer(text: string): string | null {
  const first = text.indexOf(openTag);
  const to = first < 0 ? -1 : text.indexOf(closeTag, first);
  // A tag that is opened twice before it is closed begins at the second.
  const from = to < 0 ? -1 : text.lastIndexOf(openTag, to - openTag.length);
  if (from >= 0) return text.slice(from + openTag.length, to).trim();
  return null;
}

/** The first `<answer>…</answer>` that ends on its line, as the GRPO tutorial's pattern takes it: for `extract`. */
export function taggedAnswerOnOneLine(text: string): string | null {
  // Line by line, and not as a pattern: one would go to the end of the line again from each tag that is open.
  for (const line of text.split(/[\n\r\u2028\u2029]/)) {
    const from = line.indexOf(openTag);
    const to = from < 0 ? -1 : line.indexOf(closeTag, from);
    if (to >= 0) return line.slice(from + openTag.length, to).trim();
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
