/** Bits that a key must be worth where others can reach the server. */
export const strongBits = 64;
/** 22 characters of base64url carry 128 bits. */
export const strongLength = 22;

/** Words that people use as keys, and rows of the keyboard. */
const words = [
  ...["password", "passwort", "secret", "changeme", "default", "letmein", "welcome", "admin"],
  ...["token", "server", "apikey", "test", "hone", "root", "user", "login", "master", "dragon"],
  ...["qwertyuiop", "qwertzuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm", "iloveyou", "monkey"],
];
const bitsOfWord = 8;
const shortestRepeat = 3;

/**
 * How hard a key is to guess, in bits, and rather too few than too many. Characters that repeat an earlier
 * part, continue a row (`abc`, `321`) or belong to a common word count for almost nothing.
 */
export function guessingBits(key: string): number {
  const text = key.toLowerCase();
  const alphabet = Math.log2(Math.max(2, new Set(key).size));
  let bits = 0;
  for (let at = 0; at < text.length;) {
    const word = words.find((one) => text.startsWith(one, at));
    const repeat = repeatAt(text, at);
    const row = rowAt(text, at);
    const length = Math.max(word?.length ?? 0, repeat, row);
    if (length >= shortestRepeat) {
      bits += bitsOfWord;
      at += length;
    } else {
      bits += alphabet;
      at += 1;
    }
  }
  return bits;
}

/** The length of the longest part from here on that occurred before. The two may overlap. */
function repeatAt(text: string, at: number): number {
  let longest = 0;
  for (let from = 0; from < at; from += 1) {
    let length = 0;
    while (at + length < text.length && text[from + length] === text[at + length]) length += 1;
    longest = Math.max(longest, length);
  }
  return longest;
}

/** The length of the row of characters that begins here, each one step from the one before. */
function rowAt(text: string, at: number): number {
  const step = text.charCodeAt(at + 1) - text.charCodeAt(at);
  if (Math.abs(step) !== 1) return 0;
  let length = 2;
  while (text.charCodeAt(at + length) - text.charCodeAt(at + length - 1) === step) length += 1;
  return length;
}
