import { assert, asyncProperty, jsonValue } from "fast-check";
import { describe, expect, it } from "vitest";
import { checkShape, maxKeys, maxValues } from "./body-shape.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);
const pause = () => Promise.resolve();
const shape = (text: string) => checkShape(bytesOf(text), pause);

describe("a body's shape", () => {
  it.each([
    ["numbers", `[${"1,".repeat(maxValues)}1]`, /more than 200000 values/],
    ["objects", `[${"{},".repeat(maxValues)}1]`, /more than 200000 values/],
    ["brackets", "[".repeat(1_000_000), /200 levels/],
    ["keys", `{${Array.from({ length: maxKeys + 1 }, (_, n) => `"${n}":1`).join()}}`, /4096 keys/],
  ])("with too many %s is refused by its bytes", async (_, text, message) => {
    await expect(shape(text)).rejects.toThrow(message);
  });

  it("counts nothing in texts, wherever a turn ends in them", async () => {
    const text = JSON.stringify({ a: '",[{'.repeat(400_000), b: "\\".repeat(700_001), c: [1, 2] });
    for (let shift = 0; shift < 4; shift += 1) {
      await expect(shape(`${" ".repeat(shift)}${text}`)).resolves.toBeUndefined();
    }
  });

  it("of any small value is accepted", async () => {
    await assert(asyncProperty(jsonValue(), (value) => shape(JSON.stringify(value))));
  });

  it("is looked at in turns, whatever there is", async () => {
    let turns = 0;
    const count = () => Promise.resolve(void (turns += 1));
    await checkShape(bytesOf(JSON.stringify("x".repeat(8 * 1024 * 1024 - 2))), count);
    expect(turns).toBe(7);
  });
});
