/** A fenced block of code. */
export interface CodeBlock {
  /** The first word behind the opening fence, in lower case: `ts` of "```ts title=…". "" where there is none. */
  language: string;
  code: string;
}

interface Fence {
  mark: string;
  /** What stands behind the mark. */
  info: string;
  /** Spaces before it. */
  indent: number;
}

/*
 * A model wrote these texts and can make them long: each is read once from its start to its end, and no pattern
 * may try again from another place.
 */

/** All blocks that are opened and closed, in order. */
export function codeBlocks(text: string): CodeBlock[] {
  const lines = text.split("\n");
  const blocks: CodeBlock[] = [];
  let open: (Fence & { from: number }) | null = null;
  let inList = false;
  for (const [index, line] of lines.entries()) {
    // A list ends at a line that is no item and not indented.
    if (open === null && /^\S/.test(line)) inList = listMark.test(line);
    else if (open === null && !inList) inList = listMark.test(line) && /^ {0,3}\S/.test(line);
    const fence = fenceOf(line, inList);
    if (!fence) continue;
    if (open === null) {
      open = { ...fence, from: index + 1 };
    } else if (closes(fence, open)) {
      const { from, indent } = open;
      // As in Markdown: a block within a list stands as far to the right as its fence does.
      const spaces = new RegExp(`^[ \\t]{0,${indent}}`);
      const code = lines.slice(from, index).map((within) => within.replace(spaces, ""));
      blocks.push({ language: languageOf(open.info), code: code.join("\n") });
      open = null;
    }
  }
  return blocks;
}

/** The text as one block, where its first line opens one and its last line closes it. */
export function asOneBlock(text: string): CodeBlock | null {
  const all = text.trim();
  const first = all.indexOf("\n");
  const last = all.lastIndexOf("\n");
  if (first < 0 || last === first) return null;
  const open = fenceOf(all.slice(0, first), false);
  const close = fenceOf(all.slice(last + 1).trimStart(), false);
  if (!open || !close || !closes(close, open)) return null;
  return { language: languageOf(open.info), code: all.slice(first + 1, last) };
}

/** Whether any line begins as a fence does, be it a whole one or not. */
export function hasFence(text: string): boolean {
  return text.split("\n").some((line) => /^(?:```|~~~)/.test(line.trimStart()));
}

const listMark = /^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+/;

/**
 * A fence stands at most three columns to the right of the text around it. Within a list models indent it by as
 * many columns as they like, and some put it behind the item's own mark: there it is one wherever it stands.
 */
function fenceOf(line: string, inList: boolean): Fence | null {
  const before = inList ? (listMark.exec(line)?.[0] ?? /^[ \t]*/.exec(line)?.[0] ?? "") : "";
  const found = /^ {0,3}(`{3,}|~{3,})/.exec(line.slice(before.length));
  if (!found) return null;
  const [start, mark = ""] = found;
  const indent = before.length + start.length - mark.length;
  const info = line.slice(before.length + start.length).trim();
  // As in Markdown: "```x```" on one line is code within a sentence.
  return mark.startsWith("`") && info.includes("`") ? null : { mark, info, indent };
}

function closes(fence: Fence, open: Fence): boolean {
  return fence.info === "" && fence.mark.startsWith(open.mark);
}

/** Also of "```ts{1,3}", "```ts:src/a.ts" and "```{.python}". */
function languageOf(info: string): string {
  const word = /^\{?\.?([^\s{}:,=]*)/.exec(info)?.[1] || info;
  return word.toLowerCase();
}
