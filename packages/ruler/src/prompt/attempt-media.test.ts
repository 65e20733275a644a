import { expect, it } from "vitest";
import { collectAttempts } from "./attempts.ts";

const attemptsOf = (...fields: object[]): number =>
  collectAttempts(
    fields.map((own) => ({
      messages: [{ role: "assistant", content: "x", ...own }],
      tools: null,
    })),
  ).attempts.length;

it("attempts that differ in speech, pictures or files only are not the same", () => {
  const picture = (data: string) => ({ images: [{ image_url: { url: `data:,${data}` } }] });
  expect(attemptsOf(picture("a"), picture("b"), {}, picture("a"))).toBe(3);
  expect(attemptsOf({ audio: { data: "a" } }, { audio: { data: "b" } })).toBe(2);
  expect(attemptsOf({ files: [{ name: "a" }] }, { files: [{ name: "b" }] })).toBe(2);
  expect(attemptsOf({ audio: { id: "1", data: "a" } }, { audio: { id: "2", data: "a" } })).toBe(1);
  expect(attemptsOf({ images: [] }, {}, { audio: null })).toBe(1);
});
