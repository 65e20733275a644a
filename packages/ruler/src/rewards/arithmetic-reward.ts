import { requireNumber } from "@hone/core";
import { completionWithThinking, taggedAnswer } from "./completion-text.ts";
import { evaluateExpression } from "./expression.ts";
import { add, compare, fromNumber, negate } from "./fraction.ts";
import type { Fraction } from "./fraction.ts";
import { exactNumber } from "./number-text.ts";
import { named } from "./reward-function.ts";
import type { Reader, RewardFunction } from "./reward-function.ts";

export interface ArithmeticOptions {
  /**
   * The numbers that were given, or null if the trajectory has no such task. A number below zero must be used with
   * its sign: -3 is used in `8 + -3`, but not in `8 - 3`.
   */
  numbers: Reader<readonly number[]>;
  /** What the expression must come to: a number, or a number as text. */
  target: Reader<number | string>;
  /**
   * `each-once`: exactly the given numbers, each as often as it was given; `at-most-once`: none more
   * often; `any`: any of them, as often as one likes. @default "each-once"
   */
  use?: "each-once" | "at-most-once" | "any" | undefined;
  /** How far from the target still counts as right. 0 means exactly the target. @default 1e-5 */
  tolerance?: number | undefined;
  /** The expression in the answer. @default what stands in `<answer>` */
  extract?: ((text: string) => string | null) | undefined;
}

/** 1 if the answer is an expression of the given numbers that comes to the target, else 0. */
export function arithmetic(options: ArithmeticOptions): RewardFunction {
  const { use = "each-once", extract = taggedAnswer } = options;
  const tolerance = fromNumber(requireNumber("tolerance", options.tolerance ?? 1e-5, { least: 0 }));
  return named("arithmetic", (trajectory, context) => {
    const numbers = options.numbers(trajectory, context);
    const target = options.target(trajectory, context);
    if (numbers === null || numbers === undefined) return null;
    if (target === null || target === undefined) return null;
    const wanted = typeof target === "string" ? exactNumber(target) : fromNumber(target);
    // Not a task that an answer could fail: combineRewards refuses it by this function's name.
    if (wanted === null) return Number.NaN;
    const text = extract(completionWithThinking(trajectory));
    const found = text === null ? null : evaluateExpression(text);
    if (!found || !usesNumbers(found.numbers, numbers.map(fromNumber), use)) return 0;
    const difference = add(found.value, negate(wanted));
    const size = difference.top < 0n ? negate(difference) : difference;
    return compare(size, tolerance) <= 0 ? 1 : 0;
  });
}

function usesNumbers(
  used: readonly Fraction[],
  given: readonly Fraction[],
  use: "each-once" | "at-most-once" | "any",
): boolean {
  const left = [...given];
  for (const value of used) {
    const at = placeOf(value, left);
    if (at < 0) return false;
    if (use !== "any") left.splice(at, 1);
  }
  if (use === "any") return true;
  return use === "at-most-once" || left.length === 0;
}

/** A sign may belong to the number that was given, or be an operation upon it: -3 is -3, else -(3). */
function placeOf(value: Fraction, given: readonly Fraction[]): number {
  const at = given.findIndex((other) => compare(value, other) === 0);
  if (at >= 0 || value.top >= 0n) return at;
  return given.findIndex((other) => compare(negate(value), other) === 0);
}
