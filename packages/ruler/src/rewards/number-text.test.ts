import { assert, constantFrom, double, integer, property } from "fast-check";
import { describe, expect, it } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import { fromNumber } from "./fraction.ts";
import { exactNumber, isNear, lastNumber, numberFromText } from "./number-text.ts";
import { numericMatch } from "./text-rewards.ts";

function read(text: string): number | null {
  const value = lastNumber(text);
  return value && Number(value.top) / Number(value.bottom);
}

describe("the last number", () => {
  it.each([
    // Signs, however they are written.
    ["−5", -5],
    ["The answer is –5.", -5],
    ["‐5", -5],
    ["－５", -5],
    ["= - 3", -3],
    ["x = −3", -3],
    ["minus 5", -5],
    ["negative 5", -5],
    ["+5", 5],
    // Currencies.
    ["-$5", -5],
    ["$-5", -5],
    ["−€ 5", -5],
    ["-USD 5", -5],
    ["USD -5", -5],
    ["$5", 5],
    ["\\$5", 5],
    ["-5 €", -5],
    ["£1,234.50", 1234.5],
    // Fractions.
    ["1/2", 0.5],
    ["-1/2", -0.5],
    ["2 2/3", 8 / 3],
    ["-2 1/2", -2.5],
    ["½", 0.5],
    ["2½", 2.5],
    ["2 ½", 2.5],
    ["1⁄2", 0.5],
    ["\\frac{1}{2}", 0.5],
    ["$\\dfrac{3}{4}$", 0.75],
    // Groups.
    ["1 234", 1234],
    ["1\u00A0234", 1234],
    ["1\u202F234,5", 1234.5],
    ["1.234,50", 1234.5],
    ["1,234.50", 1234.5],
    ["1.234.567", 1234567],
    ["1'234.5", 1234.5],
    ["1’234", 1234],
    ["12,34,567", 1234567],
    ["1_000", 1000],
    ["1{,}234", 1234],
    ["1\\,234", 1234],
    ["2023 500", 500],
    // Scripts.
    ["١٢٣", 123],
    ["١٬٢٣٤٫٥", 1234.5],
    ["१२", 12],
    ["１２", 12],
    // Sizes.
    ["1.5e3", 1500],
    ["2E-1", 0.2],
    ["1.5 × 10^3", 1500],
    ["1.5×10³", 1500],
    ["2 * 10^{-3}", 0.002],
    ["3 \\times 10^2", 300],
    ["5 million", 5_000_000],
    ["1.5 thousand", 1500],
    // What stands around it.
    ["**5**", 5],
    ["*5* apples", 5],
    ["**Answer** 42", 42],
    ["**Final Answer**\n\n42", 42],
    ["Answer:**42**", 42],
    ["**Total** $5", 5],
    ["(5)", 5],
    ["It is 5!", 5],
    ["5 kg", 5],
    ["5kg", 5],
    ["50%", 50],
    ["2 + 2 = 4.", 4],
    ["8 - 3 = 5", 5],
    ["\\boxed{42}", 42],
    ["1, 2, 3", 3],
    [".5", 0.5],
  ])("of %j is %d", (text, expected) => {
    expect(read(text)).toBeCloseTo(expected, 12);
    expect(read(`So: ${text}`)).toBeCloseTo(expected, 12);
  });

  it.each([
    ["1,5", "a list, or a decimal comma"],
    ["1,2345", "the same"],
    ["0,500", "the same"],
    ["- 5", "an item, or a negative number"],
    ["total - 5", "a dash, or a minus"],
    ["($5)", "an accountant's loss"],
    ["10 -4", "a list, or an operation"],
    ["8 - 3", "an operation"],
    ["8-3", "the same"],
    ["2 * 3", "the same"],
    ["2*3", "the same"],
    ["2 ** 3", "the same"],
    ["3 × 4", "the same"],
    ["5 + x", "the same"],
    ["2^10", "a power"],
    ["5²", "the same"],
    ["√4", "a root"],
    ["\\sqrt{4}", "the same"],
    ["5π", "a multiple of another number"],
    ["±5", "two numbers"],
    ["3–5", "a range"],
    ["5-", "a sign behind the number"],
    ["1/2/2024", "a date"],
    ["2024-01-15", "the same"],
    ["5:30", "a time"],
    ["3:4", "a ratio"],
    ["v1.2.3", "a version"],
    ["1.2.3", "the same"],
    ["GPT-4", "a name"],
    ["x2", "the same"],
    ["5k", "thousands, or kelvins"],
    ["7 3/2", "two numbers, or one"],
    ["3/0", "none"],
    ["0x1F", "a hexadecimal"],
    ["--5", "none"],
    ["1e999", "more than a number holds"],
    ["none", "none"],
  ])("of %j is not to be told: %s", (text) => {
    expect(read(text)).toBeNull();
  });

  it("is what Intl writes in any language, or not to be told, and never another", () => {
    const locales = [
      "en-US",
      "fr-FR",
      "sv-SE",
      "pl-PL",
      "de-CH",
      "hi-IN",
      "ar-EG",
      "fa-IR",
      "ja-JP",
    ];
    const written = property(
      constantFrom(...locales),
      integer({ min: -9_999_999, max: 9_999_999 }),
      (locale, value) => {
        // At four digits some languages do not group: then there is nothing to read but the digits.
        expect(read(new Intl.NumberFormat(locale).format(value))).toBe(value);
      },
    );
    assert(written);
    const decimals = property(
      constantFrom(...locales, "de-DE", "es-ES", "pt-BR", "id-ID", "tr-TR", "da-DK", "en-IN"),
      double({ min: -5e6, max: 5e6, noNaN: true }),
      (locale, value) => {
        const rounded = Number(value.toFixed(2));
        const options = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
        const found = read(new Intl.NumberFormat(locale, options).format(rounded));
        if (found !== null) expect(found).toBeCloseTo(rounded, 6);
        const sure = Math.abs(rounded) >= 10_000 || locale === "en-US" || locale === "ar-EG";
        if (sure) expect(found).not.toBeNull();
      },
    );
    assert(decimals);
  });

  it("has its sign, with a currency before it or behind", () => {
    const money = property(
      constantFrom("$", "€", "£", "₹", "¥"),
      constantFrom("-", "−", "–", ""),
      integer({ min: 1, max: 999 }),
      constantFrom("", " ", "\u00A0"),
      (unit, sign, size, space) => {
        const value = sign === "" ? size : -size;
        for (const text of [
          `${sign}${unit}${space}${size}`,
          `${unit}${sign}${size}`,
          `${sign}${size}${space}${unit}`,
        ]) {
          expect(read(`It is ${text}.`)).toBe(value);
        }
      },
    );
    assert(money);
  });

  it("is exact as a fraction and with an exponent", () => {
    const parts = property(
      integer({ min: 0, max: 99 }),
      integer({ min: 1, max: 98 }),
      integer({ min: -20, max: 20 }),
      (whole, top, exponent) => {
        const value = lastNumber(`${whole} ${top}/99`);
        expect(value).toEqual(lastNumber(`${whole * 99 + top}/99`));
        const scaled = lastNumber(`${whole}.5e${exponent}`);
        expect(scaled).toEqual(exactNumber(`${whole}.5e${exponent}`));
        expect(lastNumber(`${whole}.5 × 10^${exponent}`)).toEqual(scaled);
      },
    );
    assert(parts);
  });

  it("takes no longer in texts that are made to be slow", () => {
    for (const piece of ["1 ", "1,1", "1.", "-", "$-", "1/", "\\frac{", "½", "1 234 ", "9 - "]) {
      const text = piece.repeat(200_000);
      const start = performance.now();
      lastNumber(text);
      expect(performance.now() - start).toBeLessThan(5_000);
    }
  });
});

describe("what looks like another number", () => {
  it.each([
    ["-\u00BD", -0.5],
    ["\u2212\u00BD", -0.5],
    ["2\u00BD", 2.5],
    ["\\boxed{-\\frac{1}{2}}", -0.5],
    ["-\\frac12", -0.5],
    ["2\\frac{1}{2}", 2.5],
    ["5\u200B000", 5000],
    ["5\u00AD000", 5000],
    ["5\u2008000", 5000],
    ["10\u207B\u00B3", null],
    ["1 234\u00A0567", null],
    ["1\u00B4234", null],
    ["1`234", null],
    ["1,234,56", null],
    ["5, 000", null],
    ["5 x 3", null],
    ["5 : 1", null],
    ["5 \u00B1 1", null],
  ])("%j is %j", (text, expected) => {
    const found = lastNumber(text);
    expect(found && Number(found.top) / Number(found.bottom)).toBe(expected);
  });
});

describe("a number that a task gives", () => {
  it("is the number, and nothing beside it", () => {
    expect(numberFromText("15")).toEqual(fromNumber(15));
    expect(numberFromText(" -1,234.5 ")).toEqual(fromNumber(-1234.5));
    expect(numberFromText("1.5e3")).toEqual(fromNumber(1500));
    expect(numberFromText("2/4")).toEqual(fromNumber(0.5));
    for (const text of ["", "15 apples", "1 and 2", "x15", "1,5", "NaN"]) {
      expect(numberFromText(text)).toBeNull();
    }
  });

  it("is compared as it is written", () => {
    expect(isNear(exactNumber("0.1")!, exactNumber(0.1)!, 0)).toBe(true);
    expect(isNear(exactNumber("9007199254740993")!, exactNumber(9007199254740992)!, 1e-6)).toBe(
      false,
    );
  });

  it("may be text for numericMatch; what is no number is refused", () => {
    const give = (expected: number | string, text: string) =>
      numericMatch({ expected: () => expected })(trajectory(text), { group: group([]), index: 0 });
    expect(give("15", "It is 15.")).toBe(1);
    expect(give("2/3", "2/3")).toBe(1);
    expect(give(5, "-5")).toBe(0);
    expect(give(2, "1/2")).toBe(0);
    expect(give(3, "2 2/3")).toBe(0);
    expect(give(234, "1 234")).toBe(0);
    expect(give(50, "1.234,50")).toBe(0);
    expect(give("many", "5")).toBeNaN();
    expect(() => numericMatch({ expected: () => 1, tolerance: -1 })).toThrow(/tolerance/);
  });
});
