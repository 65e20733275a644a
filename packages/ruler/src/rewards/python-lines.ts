/*
 * What Python's tokenizer refuses and the parser that we have lets pass: tabs and spaces that do not agree, and
 * numbers that are none. Runs once over code that has been parsed, so that its strings and brackets are closed.
 */

import { readString } from "./python-strings.ts";

interface Measure {
  /** The column with a tab stop at every eighth. */
  column: number;
  /** The column with tabs of one: both have to agree. */
  alternative: number;
}

/** What is wrong with its tokens; null where nothing is. */
export function tokenProblem(code: string): string | null {
  const levels: Measure[] = [{ column: 0, alternative: 0 }];
  let at = 0;
  let depth = 0;
  let atLineStart = true;
  // What stands before a string: its prefix, and the string that it is joined with.
  let word = { text: "", end: -1 };
  let string: { kind: string; end: number } | null = null;
  // `a := 1` needs parentheses, but in a condition.
  let first = "";
  if (code.includes("\0")) return "source code cannot contain null bytes";
  while (at < code.length) {
    if (atLineStart && depth === 0) {
      const indent = /[ \t\f]*/y;
      indent.lastIndex = at;
      const space = indent.exec(code)?.[0] ?? "";
      at += space.length;
      atLineStart = false;
      // Empty lines and comments have no indentation.
      if (!/[\r\n#]/.test(code[at] ?? "\n") && !fits(levels, measure(space))) {
        return "inconsistent use of tabs and spaces in indentation";
      }
      continue;
    }
    const char = code[at] as string;
    if (char === "\n") {
      atLineStart = true;
      if (depth === 0) [first, string] = ["", null];
    }
    if (char === "#") {
      at = endOfLine(code, at);
    } else if (char === "\\") {
      // The line goes on: the next one's indentation says nothing.
      at += code[at + 1] === "\r" && code[at + 2] === "\n" ? 3 : 2;
    } else if (char === "'" || char === '"') {
      const prefix = word.end === at && /^[bBrRuUfF]{1,2}$/.test(word.text) ? word.text : "";
      const found = readString(code, at, prefix);
      if (found.problem !== null) return found.problem;
      if (string && string.kind !== found.kind) return "cannot mix bytes and nonbytes literals";
      string = found;
      at = found.end;
    } else if (/[\w.]/.test(char)) {
      const pattern = /[\w.]+(?:(?<=[eE])[-+]\d[\w.]*)?/y;
      pattern.lastIndex = at;
      const text = pattern.exec(code)?.[0] ?? char;
      if (/^\.?\d/.test(text) && !isNumber(text)) return `invalid number: ${text.slice(0, 40)}`;
      at += text.length;
      word = { text, end: at };
      first ||= text;
      // Its prefix is no end of the string before.
      if (!/^[bBrRuUfF]{1,2}$/.test(text) || !/["']/.test(code[at] ?? "")) string = null;
    } else {
      if (code.startsWith(":=", at) && depth === 0 && !conditions.has(first)) {
        return "':=' needs parentheses here";
      }
      if (char === ";" && depth === 0) first = "";
      // Behind its colon a condition is over.
      else if (char === ":" && depth === 0 && code[at + 1] !== "=") first = char;
      if (!/\s/.test(char)) string = null;
      if (char === "@") first ||= char;
      if ("([{".includes(char)) depth += 1;
      if (")]}".includes(char)) depth = Math.max(0, depth - 1);
      at += 1;
    }
  }
  return null;
}

const conditions = new Set(["if", "elif", "while", "match", "case", "@"]);

function measure(space: string): Measure {
  let column = 0;
  let alternative = 0;
  for (const char of space) {
    if (char === "\t") {
      column = (Math.floor(column / 8) + 1) * 8;
      alternative += 1;
    } else if (char === "\f") {
      column = alternative = 0;
    } else {
      column += 1;
      alternative += 1;
    }
  }
  return { column, alternative };
}

/** As Python's tokenizer keeps its stack of indentations. */
function fits(levels: Measure[], line: Measure): boolean {
  let top = levels.at(-1) as Measure;
  if (line.column === top.column) return line.alternative === top.alternative;
  if (line.column > top.column) {
    levels.push(line);
    return line.alternative > top.alternative;
  }
  while (levels.length > 1 && line.column < top.column) {
    levels.pop();
    top = levels.at(-1) as Measure;
  }
  return line.column === top.column && line.alternative === top.alternative;
}

const digits = String.raw`\d(?:_?\d)*`;
const numbers = new RegExp(
  "^(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?0)*|[1-9](?:_?\\d)*|" +
    `(?:(?:${digits})?\\.${digits}|${digits}\\.)(?:[eE][-+]?${digits})?[jJ]?|${digits}[eE][-+]?${digits}[jJ]?|${digits}[jJ])$`,
);

/** Also of `1.real`-like attributes: a whole number cannot have one, a decimal can. */
function isNumber(text: string): boolean {
  if (numbers.test(text)) return true;
  // `1..a` and `1.5.a`: a number and an attribute; `1if` and `0x1for` are deprecated and parse.
  const [number = "", attribute] =
    /^((?:\d[\d_]*)?\.\d*)(\.[A-Za-z_]\w*.*)$/.exec(text)?.slice(1) ?? [];
  if (attribute !== undefined) return numbers.test(number);
  const keyword = /^(.*?)(?:and|else|for|if|in|is|not|or)$/.exec(text)?.[1];
  return keyword !== undefined && numbers.test(keyword);
}

function endOfLine(code: string, from: number): number {
  const end = code.indexOf("\n", from);
  return end < 0 ? code.length : end;
}
