import { requireNumber } from "@hone/core";
import { JudgeError } from "./judge-error.ts";

/** Tells what a request cost. Null: nobody says, and all that was set aside counts as spent. */
export type Settle = (costUsd: number | null) => void;

/** The money that judging may cost, over all requests that get this budget. */
export class JudgeBudget {
  readonly limitUsd: number;
  #spent = 0;
  #unconfirmed = 0;
  #reserved = 0;
  #underWay = 0;
  #waiting: (() => void)[] = [];

  constructor(options: { limitUsd: number }) {
    this.limitUsd = requireNumber("limitUsd", options.limitUsd, { least: 0 });
  }

  get spentUsd(): number {
    return this.#spent;
  }

  /**
   * The part of `spentUsd` that no provider confirmed: requests that broke off after they were sent, and answers
   * without usage. Each is counted at the most that it may have cost.
   */
  get unconfirmedUsd(): number {
    return this.#unconfirmed;
  }

  /**
   * Sets aside the most that a request may cost before it is sent, so that simultaneous requests do not spend the
   * same money. Waits if requests under way may give back enough.
   */
  async reserve(mostUsd: number): Promise<Settle> {
    while (this.#underWay > 0 && !this.#covers(mostUsd) && this.#spent + mostUsd <= this.limitUsd) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (!this.#covers(mostUsd)) {
      throw new JudgeError(
        `The judge's budget of $${this.limitUsd} does not cover another call, which may cost $${mostUsd.toFixed(4)} ($${this.#spent.toFixed(4)} spent, $${this.#reserved.toFixed(4)} in calls under way). Raise limitUsd, lower parameters.max_tokens, or take a cheaper judge.`,
        { failure: "over_budget" },
      );
    }
    this.#reserved += mostUsd;
    this.#underWay += 1;
    return (costUsd) => {
      this.#underWay -= 1;
      // What rounding leaves of sums and differences is no money.
      this.#reserved = this.#underWay === 0 ? 0 : this.#reserved - mostUsd;
      this.#spent += costUsd ?? mostUsd;
      if (costUsd === null) this.#unconfirmed += mostUsd;
      for (const wake of this.#waiting.splice(0)) wake();
    };
  }

  #covers(mostUsd: number): boolean {
    return this.#spent + this.#reserved + mostUsd <= this.limitUsd;
  }
}
