import { completionWithThinking, taggedAnswer } from "./completion-text.ts";
import { evaluateExpression } from "./expression.ts";
import { add, compare, fromNumber, negate } from "./fraction.ts";
import type { Fraction } from "./fraction.ts";
import { named } from "./reward-function.ts";
import type { Reader, RewardFunction } from "./reward-function.ts";

export interface ArithmeticOptions {
  /** The numbers that were given; null where the trajectory has no such task. */
  numbers: Reader<readonly number[]>;
  /** What the expression has to come to. */
  target: Reader<number>;
  /**
   * `each-once`: exactly the given numbers, each as often as it was given; `at-most-once`: none more
   * often; `any`: any of them, as often as one likes. @default "each-once"
   */
  use?: "each-once" | "at-most-once" | "any" | undefined;
  /** @default 1e-5 */
  tolerance?: number | undefined;
  /** The expression in the answer. @default what stands in `<answer>` */
  extract?: ((text: string) => string | null) | undefined;
}

/** 1 where the answer is an expression of the given numbers that comes to the target, else 0. */
export function arithmetic(options: ArithmeticOptions): RewardFunction {
  const { use = "each-once", tolerance = 1e-5, extract = taggedAnswer } = options;
  return named("arithmetic", (trajectory, context) => {
    const numbers = options.numbers(trajectory, context);
    const target = options.target(trajectory, context);
    if (numbers === null || numbers === undefined) return null;
    if (target === null || target === undefined) return null;
    const text = extract(completionWithThinking(trajectory));
    const found = text === null ? null : evaluateExpression(text);
    if (!found || !usesNumbers(found.numbers, numbers.map(fromNumber), use)) return 0;
    const difference = add(found.value, negate(fromNumber(target)));
    const size = difference.top < 0n ? negate(difference) : difference;
    return compare(size, fromNumber(tolerance)) < 0 ? 1 : 0;
  });
}

function usesNumbers(
  used: readonly Fraction[],
  given: readonly Fraction[],
  use: "each-once" | "at-most-once" | "any",
): boolean {
  if (use === "any") return used.every((a) => given.some((b) => compare(a, b) === 0));
  const left = [...given];
  for (const value of used) {
    const at = left.findIndex((other) => compare(value, other) === 0);
    if (at < 0) return false;
    left.splice(at, 1);
  }
  return use === "at-most-once" || left.length === 0;
}
