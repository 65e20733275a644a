/**
 * What may not reach a terminal, a log line or a page as it is: controls and escape sequences, carriage returns,
 * marks that turn the direction of writing, characters that cannot be seen, ends of lines that are none of ours,
 * halves of characters. The joiners of emoji and of some scripts stay; line end and tab are for the caller.
 */
const unprintable =
  // oxlint-disable-next-line no-control-regex -- they are what is looked for
  /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u00AD\u061C\u180E\u200B\u200E\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB\u{E0000}-\u{E0FFF}]|\p{Surrogate}/gu;

/** A model's text for people: several lines, each of which shows all that is in it. `\u001b` stands for an escape. */
export function printable(text: string): string {
  return text.replaceAll("\r\n", "\n").replaceAll(unprintable, escaped);
}

/** The same on one line: whoever wrote it cannot begin another. */
export function printableLine(text: string): string {
  return printable(text).replaceAll("\n", "\\n").replaceAll("\t", "\\t");
}

/** The same with its further lines set in, so that none of them looks like one of ours. */
export function printableBlock(text: string, indent: string): string {
  return printable(text).replaceAll("\n", `\n${indent}`);
}

function escaped(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, "0")}`;
}
