import { JudgeError } from "./judge-error.ts";
import { requireNumber } from "./number-option.ts";

/** Money that judging may cost, over all calls that it is passed to. */
export class JudgeBudget {
  readonly limitUsd: number;
  #spent = 0;
  #reserved = 0;

  constructor(options: { limitUsd: number }) {
    this.limitUsd = requireNumber("limitUsd", options.limitUsd, { least: 0 });
  }

  get spentUsd(): number {
    return this.#spent;
  }

  /**
   * Sets money aside for a call before it is made, so that calls at the same time do not spend it
   * twice. Give the returned function what the call cost.
   */
  reserve(estimateUsd: number): (costUsd: number) => void {
    if (this.#spent + this.#reserved + estimateUsd > this.limitUsd) {
      throw new JudgeError(
        `The judge's budget of $${this.limitUsd} does not cover another call ($${this.#spent.toFixed(4)} spent, $${this.#reserved.toFixed(4)} in calls under way). Raise limitUsd, or take a cheaper judge.`,
        { failure: "over_budget" },
      );
    }
    this.#reserved += estimateUsd;
    return (costUsd) => {
      this.#reserved -= estimateUsd;
      this.#spent += costUsd;
    };
  }
}
