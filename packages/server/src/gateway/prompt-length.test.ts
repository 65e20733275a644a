import { describe, expect, it } from "vitest";
import { checkLength, shownTexts } from "./prompt-length.ts";

const fits = (texts: string[], longestToken: number | null = 16) => {
  try {
    checkLength(texts, 100, { longestToken }, { kind: "chat", param: "messages" });
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: "context_length_exceeded", param: "messages" });
    return false;
  }
};

describe("prompts that cannot fit", () => {
  it("are refused where it is certain, and only there", () => {
    expect(fits(["a".repeat(1600)])).toBe(true);
    expect(fits(["a".repeat(1601)])).toBe(false);
    expect(fits(["a".repeat(801), "b".repeat(800)])).toBe(false);
    // Templates and tokens swallow white space, and normalisers join what is not ASCII.
    expect(fits([" \n\t\u00a0\u2003\u3000".repeat(10_000)])).toBe(true);
    expect(fits(["é".repeat(6400)])).toBe(true);
    expect(fits(["é".repeat(6401)])).toBe(false);
    expect(fits(["a".repeat(1_000_000)], null)).toBe(true);
  });

  it("count what every template shows", () => {
    expect(
      shownTexts([
        { role: "user", content: [{ type: "text", text: "a" }] },
        { role: "assistant", content: "<think>long</think>b", reasoning_content: "long" },
        { role: "assistant", content: null, refusal: "c" },
      ]),
    ).toEqual(["a", "b", "c"]);
  });
});
