import { randomBytes, randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { guessingBits, strongBits } from "./key-strength.ts";

it.each([
  "a".repeat(22),
  "ab".repeat(20),
  "passwordpasswordpassword",
  "hone_hone_hone_hone_hone_hone",
  "abcdefghijklmnopqrstuvwxyz",
  "zyxwvutsrqponmlkjihgfedcba",
  "01234567890123456789012345",
  "qwertyuiopasdfghjklzxcvbnm",
  "changeme-changeme-changeme",
  "1111111111222222222233333333334444444444",
  "Admin123Admin123Admin123",
])("%s can be guessed", (key) => {
  expect(guessingBits(key)).toBeLessThan(strongBits);
});

it("no random key is taken for one that can", () => {
  for (let n = 0; n < 2_000; n += 1) {
    for (const key of [
      randomBytes(16).toString("base64url"),
      randomBytes(16).toString("hex"),
      randomUUID(),
      `hone_${randomBytes(32).toString("base64url")}`,
    ]) {
      expect(guessingBits(key)).toBeGreaterThan(strongBits);
    }
  }
});
