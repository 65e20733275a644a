import { expect, it } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import { strictPattern, withStrictPatterns } from "./schema-patterns.ts";
import { jsonMatch } from "./text-rewards.ts";

it.each([
  ["^\\d{3}\\-\\d{4}$", "^\\d{3}-\\d{4}$"],
  ["\\@\\#[\\-\\@]", "@#[\\-@]"],
  // No sign may be dropped here: it stays, and is refused.
  ["\\_", "\\_"],
  ["a\\/b\\.c", "a\\/b\\.c"],
  ["[a-z]+", "[a-z]+"],
  ["(", "("],
])("%j is read as %j", (pattern, strict) => {
  expect(strictPattern(pattern)).toBe(strict);
});

it("looks for patterns where a schema has them, and nowhere else", () => {
  const schema = {
    properties: { pattern: { pattern: "\\-" }, code: { const: { pattern: "\\-" } } },
    patternProperties: { "\\@": { items: [{ pattern: "\\-" }] } },
  };
  expect(withStrictPatterns(schema)).toEqual({
    properties: { pattern: { pattern: "-" }, code: { const: { pattern: "\\-" } } },
    patternProperties: { "@": { items: [{ pattern: "-" }] } },
  });
});

it("a schema that escapes more than it has to is one", async () => {
  const reward = jsonMatch({ schema: { type: "string", pattern: "^\\d{3}\\-\\d{4}$" } });
  const give = (text: string) => reward(trajectory(text), { group: group([]), index: 0 });
  expect(await give('"555-1234"')).toBe(1);
  expect(await give('"5551234"')).toBe(0);
});
