import type { Bill } from "./bills.ts";

const keys = ["name", "amount", "due"] as const;

/**
 * 0 where the whole answer is not one JSON object; else .2, .2 more for exactly the three keys, and .2 for
 * each value that is exactly right.
 */
export function scoreAnswer(
  answer: string,
  bill: Bill,
): { reward: number; metrics: Record<string, number> } {
  const read = readObject(answer);
  const right = keys.filter(
    (key) => read !== null && Object.hasOwn(read, key) && read[key] === bill[key],
  );
  const exactKeys =
    read !== null &&
    Object.keys(read).length === keys.length &&
    keys.every((key) => Object.hasOwn(read, key));
  const points = read === null ? 0 : 1 + Number(exactKeys) + right.length;
  return {
    // Fifths, so that equal answers have equal rewards to the last bit.
    reward: points / 5,
    metrics: {
      exact: points === 5 ? 1 : 0,
      json: read === null ? 0 : 1,
      keys: exactKeys ? 1 : 0,
      ...Object.fromEntries(keys.map((key) => [key, right.includes(key) ? 1 : 0])),
    },
  };
}

function readObject(answer: string): Record<string, unknown> | null {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    return null;
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? (value as Record<string, unknown>) : null;
}
