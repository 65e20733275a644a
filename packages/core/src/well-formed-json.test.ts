import { array, assert, constantFrom, property } from "fast-check";
import { describe, expect, it } from "vitest";
import { mulberry32 } from "./random.ts";
import { wellFormedJson, wellFormedSteps } from "./well-formed-json.ts";

const half = "😀".slice(0, 1);
const other = "😀".slice(1);

describe("wellFormedJson", () => {
  it.each([
    [half, "\ufffd"],
    [other, "\ufffd"],
    [other + half, "\ufffd\ufffd"],
    [half + half + other, "\ufffd😀"],
    [`😀${half}`, "😀\ufffd"],
    [`\\${half}`, "\\\ufffd"],
    [`\\\\${half}\\`, "\\\\\ufffd\\"],
    // Not an escape: a backslash and letters.
    ["\\ud83d", "\\ud83d"],
    ["\\\\ud83d\\", "\\\\ud83d\\"],
  ])("replaces what is half a character in %j", (given, expected) => {
    const read: unknown = JSON.parse(
      wellFormedJson(JSON.stringify({ [given]: [given, { a: given }] })),
    );
    expect(read).toEqual({ [expected]: [expected, { a: expected }] });
  });

  it("keeps whole characters, however they are escaped", () => {
    for (const json of [
      '"\\ud83d\\ude00"',
      '"\\uD83D\\uDE00"',
      '"😀"',
      '"\\\\\\ud83d\\ude00"',
      "3",
    ]) {
      expect(wellFormedJson(json)).toBe(json);
    }
    expect(wellFormedJson('"\\uD83D\\n\\uDe00"')).toBe('"\\ufffd\\n\\ufffd"');
  });

  it("does what UTF-8 does to any text", () => {
    const random = mulberry32(7);
    const units = ["\ud83d", "\ude00", "\\", "u", "d83d", '"', "\n", "a", "é"];
    for (let round = 0; round < 3000; round += 1) {
      let text = "";
      for (let i = 0; i < 8; i += 1) text += units[Math.floor(random() * units.length)];
      const plain = JSON.stringify(text);
      // As Python writes it: everything outside ASCII is an escape.
      const ascii = plain.replace(
        /[^\x20-\x7e]/g,
        (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
      );
      const expected = text.replace(/\p{Cs}/gu, "\ufffd");
      expect(JSON.parse(wellFormedJson(plain))).toBe(expected);
      expect(JSON.parse(wellFormedJson(ascii))).toBe(expected);
    }
  });

  it("replaces what one expression finds, in texts that are no JSON too", () => {
    // Of several backslashes each two are a backslash: the lookbehind begins at the first.
    const surrogates =
      /(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|\\u[dD][89a-fA-F][\da-fA-F]{2})/g;
    const pieces = [
      "\\",
      "\\\\",
      "u",
      "\\ud83d",
      "\\ude00",
      "\\uD800",
      "\\u0041",
      '\\"',
      "d83d",
      "x",
      "\\n",
    ];
    const same = property(array(constantFrom(...pieces), { maxLength: 40 }), (chosen) => {
      const text = chosen.join("");
      const expected = text.replace(
        surrogates,
        (_, before: string, found: string) => before + (found.length === 12 ? found : "\\ufffd"),
      );
      expect(wellFormedJson(text)).toBe(expected);
    });
    assert(same, { numRuns: 2_000 });
  });

  it("gives others their turn in a text of nothing but escapes", () => {
    const steps = wellFormedSteps("\\ud800".repeat(100_000));
    let turns = 0;
    let step = steps.next();
    for (; !step.done; step = steps.next()) turns += 1;
    expect(step.value).toBe("\\ufffd".repeat(100_000));
    expect(turns).toBe(25);
  });

  it("is linear in long runs of backslashes", { timeout: 5_000 }, () => {
    const text = `"${"\\\\".repeat(2_000_000)}\\ud83d"`;
    expect(wellFormedJson(text).endsWith('\\ufffd"')).toBe(true);
  });
});
