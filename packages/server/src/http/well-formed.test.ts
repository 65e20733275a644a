import { wellFormedJson } from "@hone/core";
import { array, assert, asyncProperty, constantFrom } from "fast-check";
import { expect, it } from "vitest";
import { wellFormed } from "./well-formed.ts";

it("makes of any text what is made of it at once", async () => {
  const piece = constantFrom(
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
  );
  const same = asyncProperty(array(piece, { maxLength: 40 }), async (pieces) => {
    const text = pieces.join("");
    expect(await wellFormed(text, () => Promise.resolve())).toBe(wellFormedJson(text));
  });
  await assert(same, { numRuns: 2_000 });
});

it("gives others their turn in a body of nothing but escapes", async () => {
  let turns = 0;
  const text = "\\ud800".repeat(100_000);
  const made = await wellFormed(text, () => Promise.resolve(void (turns += 1)));
  expect(made).toBe("\\ufffd".repeat(100_000));
  expect(turns).toBe(5);
});
