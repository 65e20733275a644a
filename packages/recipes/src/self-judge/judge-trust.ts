import { estimate, mean, type Estimate } from "../doctor/statistics.ts";
import { percent } from "../doctor/verdict.ts";

/** What a judge's own accuracy says of whether its judgements may score rollouts that have no gold. */
export interface JudgeTrust {
  readonly trusted: boolean;
  /** Of the newest groups with gold: the share of the pairs that gold tells apart which the judgements order alike. */
  readonly accuracy: Estimate | null;
  /** Why, in words. */
  readonly reason: string;
  /** Takes in groups with gold that were judged: the accuracy of each. */
  measured(accuracies: readonly number[]): void;
}

/**
 * Judgements are trusted while the lower end of the 95% interval of their accuracy lies above `above`. A judge that
 * does not know yet agrees with itself all the same, and would teach the policy whatever it happens to like. `above`
 * null trusts always. `onChange` is told when that changes.
 */
export function judgeTrust(given: {
  above: number | null;
  /** How many groups with gold count, the newest ones; half of them are needed. At least 12. */
  window: number;
  onChange: (trust: JudgeTrust) => void;
}): JudgeTrust {
  const { above, window, onChange } = given;
  let newest: number[] = [];
  const trust = {
    trusted: above === null,
    accuracy: null as Estimate | null,
    reason: reasonOf(null, 0, given),
    measured(accuracies: readonly number[]) {
      if (accuracies.length === 0) return;
      newest = [...newest, ...accuracies].slice(-window);
      trust.accuracy = estimate(newest, (of) => mean(of));
      trust.reason = reasonOf(trust.accuracy, newest.length, given);
      const before = trust.trusted;
      const enough = newest.length >= leastOf(window);
      trust.trusted = above === null || (enough && (trust.accuracy?.low ?? -Infinity) > above);
      if (trust.trusted !== before) onChange(trust);
    },
  };
  return trust;
}

/** Of a few groups an interval is too narrow, and one that is looked at in each step is lucky once. */
const leastOf = (window: number): number => Math.ceil(window / 2);

function reasonOf(
  accuracy: Estimate | null,
  groups: number,
  { above, window }: { above: number | null; window: number },
): string {
  if (above === null) return "trustAbove is null";
  const least = leastOf(window);
  if (!accuracy || accuracy.low === null || accuracy.high === null || groups < least) {
    return `${groups} groups with gold have been judged so far, and ${least} are needed to say how well`;
  }
  const [value, low, high] = [accuracy.value, accuracy.low, accuracy.high].map(percent);
  return `in the newest ${groups} groups with gold the policy orders ${value} of the pairs as gold does (95% interval ${low} to ${high}), and the lower end has to lie above ${percent(above)}`;
}
