import { HoneError, policyName } from "@hone/core";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import { isConstrained, stepOf } from "../../step-data/filter.ts";
import type { StepPlan } from "../../step-data/step-data.ts";
import type { Task } from "./kind.ts";

/** What the worker says of rollouts of the policy that is trained; of older ones it is said here. */
export const differenceMetric = "sampling/sampling_logp_difference/mean";

/** So many completions are looked at, of so many tokens at most: neither a step nor requests are to wait for this. */
const looked = 2;
const longest = 1024;

/** How far an engine is from the trainer, on what an earlier policy sampled. */
export interface EarlierDifference {
  policy: string;
  /** Of |sampler − trainer|, over the tokens that were looked at. */
  mean: number;
}

/**
 * Where a step has no rollouts of the policy that it trains, as where the next batch is played meanwhile, nothing shows
 * whether the engine computes what the trainer does. So the trainer is asked how likely the earlier policy finds two of its
 * completions. Null where the worker sees to it itself, where there is nothing short enough to compare, and where that cannot
 * be told.
 */
export async function differenceOfEarlier(
  { context, record }: Pick<Task, "context" | "record">,
  plan: StepPlan,
  completions: ReadonlyMap<string, LedgerCompletion>,
): Promise<EarlierDifference | null> {
  const trained = plan.config.step - 1;
  const comparable = plan.completions
    .filter(({ trainable }) => trainable)
    .flatMap(({ id }) => completions.get(id) ?? [])
    .filter((one) => one.temperature === 1 && !isConstrained(one));
  const ages = [...new Set(comparable.map(({ policy }) => stepOf(policy)))].toSorted(
    (a, b) => b - a,
  );
  if (ages.length === 0 || ages.includes(trained)) return null;
  const step = ages.find((one) => context.models.policy(record.model, one)?.removedAt === null);
  if (step === undefined) return null;
  const chosen = choose(
    comparable.filter(({ policy }) => stepOf(policy) === step),
    completions,
  );
  if (chosen.length === 0) return null;
  try {
    const folder = context.checkpoints.path(record.model, step);
    const told = await context.trainer.logprobs(
      folder,
      chosen.map(({ ids }) => ids),
    );
    const differences = chosen.flatMap(({ completion: { logprobs } }, at) => {
      const own = told[at]?.slice(-logprobs.length) ?? [];
      return Array.from(logprobs, (logprob, token) => Math.abs(logprob - (own[token] ?? NaN)));
    });
    const mean = differences.reduce((sum, one) => sum + one, 0) / differences.length;
    return { policy: policyName(record.model, step), mean };
  } catch (error) {
    // A worker that is away is waited for by the step itself.
    context.log.warn(
      { model: record.model, step, err: error },
      "what an earlier policy sampled could not be compared with the trainer's logprobs",
    );
    return null;
  }
}

/** Throws where the engine did not sample from the policy that it says. */
export function requireNear(difference: EarlierDifference | null, most: number): void {
  if (!difference || difference.mean <= most) return;
  throw new HoneError(
    `The engine's logprobs of ${difference.policy} differ from the trainer's by ${difference.mean.toPrecision(3)} on average, more than ${most}: the engine did not sample from it. \`hone doctor\` says which engine; check its precision and sampling parameters.`,
    { code: "train_failed" },
  );
}

function choose(
  some: readonly LedgerCompletion[],
  completions: ReadonlyMap<string, LedgerCompletion>,
): { completion: LedgerCompletion; ids: number[] }[] {
  return some
    .map((completion) => ({ completion, ids: idsOf(completion, completions) }))
    .filter(({ ids }) => ids.length <= longest)
    .toSorted((a, b) => b.completion.sampled.length - a.completion.sampled.length)
    .slice(0, looked);
}

/** The whole sequence, from the first token of the conversation on. */
function idsOf(
  completion: LedgerCompletion,
  completions: ReadonlyMap<string, LedgerCompletion>,
): number[] {
  const parts: number[][] = [];
  for (let one: LedgerCompletion | undefined = completion; one;) {
    parts.unshift([...one.promptSuffix, ...one.sampled]);
    one = one.parentId === null ? undefined : completions.get(one.parentId);
  }
  return parts.flat();
}
