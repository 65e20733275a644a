import type { Budget } from "./stop-options.ts";

/** What a run has taken so far, over all its starts. */
export interface Spending {
  seconds: number;
  /** Judges' and rollouts' own, as far as they tell. */
  usd: number;
  steps: number;
}

/** The dollars of a run: what was paid for requests, and the machine by its price. */
function dollarsOf({ seconds, usd }: Spending, { usdPerHour = 0 }: Budget): number {
  return usd + (seconds / 3600) * usdPerHour;
}

/**
 * Why another step would take the run beyond its budget, or null. `step` is what the newest steps took each, and
 * `verdict` what the last evaluation is going to take: a budget pays for that too.
 */
export function budgetReached(
  spent: Spending,
  budget: Budget,
  ahead: { step: Pick<Spending, "seconds" | "usd">; verdict: Pick<Spending, "seconds" | "usd"> },
): { what: "usd" | "gpuSeconds" | "steps"; message: string } | null {
  const { usd, gpuSeconds, steps, gpus = 1 } = budget;
  if (steps !== undefined && spent.steps >= steps) {
    return { what: "steps", message: `The budget's ${steps} steps are trained.` };
  }
  const after: Spending = {
    steps: spent.steps,
    seconds: spent.seconds + ahead.step.seconds + ahead.verdict.seconds,
    usd: spent.usd + ahead.step.usd + ahead.verdict.usd,
  };
  const also = "with another step and the verdict's evaluation it would be";
  if (usd !== undefined && dollarsOf(after, budget) > usd) {
    return {
      what: "usd",
      message: `$${dollarsOf(spent, budget).toFixed(4)} of the budget's $${usd} are spent; ${also} $${dollarsOf(after, budget).toFixed(4)}.`,
    };
  }
  if (gpuSeconds !== undefined && gpus * after.seconds > gpuSeconds) {
    return {
      what: "gpuSeconds",
      message: `${Math.round(gpus * spent.seconds)} of the budget's ${gpuSeconds} GPU-seconds are spent; ${also} ${Math.round(gpus * after.seconds)}.`,
    };
  }
  return null;
}
