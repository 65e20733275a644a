import { assert, property, string } from "fast-check";
import { expect, it } from "vitest";
import { printable, printableBlock, printableLine } from "./printable.ts";

it.each([
  ["\u001b[2J\u001b]0;title\u0007gone", "\\u001b[2J\\u001b]0;title\\u0007gone"],
  ["done\rRULER: ok", "done\\u000dRULER: ok"],
  ["a\u202Etxt.exe", "a\\u202etxt.exe"],
  ["a\u2066b\u2069\u200F", "a\\u2066b\\u2069\\u200f"],
  ["zero\u200Bwidth\uFEFF", "zero\\u200bwidth\\ufeff"],
  ["\u009B31m", "\\u009b31m"],
  ["tag\u{E0041}", "tag\\u{e0041}"],
  ["half \uD83D", "half \\ud83d"],
  ["line\u2028other", "line\\u2028other"],
  ["Grüße, 你好 👩‍👩‍👧 नमस्ते\tx\ny", "Grüße, 你好 👩‍👩‍👧 नमस्ते\tx\ny"],
  ["windows\r\nline", "windows\nline"],
])("%j is shown as %j", (text, shown) => {
  expect(printable(text)).toBe(shown);
});

it("begins no line of its own", () => {
  expect(printableLine("said\nRULER grp_1: scored\t1")).toBe("said\\nRULER grp_1: scored\\t1");
  expect(printableBlock("said\nRULER grp_1", "    ")).toBe("said\n    RULER grp_1");
  const any = property(string({ unit: "binary" }), (text) => {
    const line = printableLine(text);
    // oxlint-disable-next-line no-control-regex
    expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029]/);
    expect(line).not.toMatch(/\p{Surrogate}/u);
    expect(printableLine(line)).toBe(line);
  });
  assert(any);
});
