import { mean } from "../statistics.ts";
import type { StepRecord } from "./step-record.ts";

export interface Warning {
  code:
    | "no_variance"
    | "one_answer"
    | "length_drift"
    | "sampler_difference"
    | "entropy_low"
    | "nothing_learnt"
    | "rollouts_fail";
  message: string;
}

/** Steps that the beginning and the end of a run are judged by. */
const window = 5;
/** Trained steps after which a reward should have risen. */
const patience = 15;

/** What the curve says in words, with what to try. `history` ends with the step that is judged. */
export function adviceFor(history: readonly StepRecord[]): Warning[] {
  const now = history.at(-1);
  if (!now) return [];
  return rules.flatMap(([code, rule]) => {
    const message = rule(now, history);
    return message === null ? [] : [{ code, message }];
  });
}

type Rule = (now: StepRecord, history: readonly StepRecord[]) => string | null;

function variance(_: StepRecord, history: readonly StepRecord[]): string | null {
  const recent = history.slice(-3);
  const groups = recent.reduce((sum, { variance: { groups: live } }) => sum + live, 0);
  const of = recent.reduce((sum, step) => sum + step.variance.of, 0);
  if (of === 0 || groups / of >= 0.25) return null;
  const level = mean(recent.map(({ reward }) => reward?.mean ?? 0)).toPrecision(2);
  return (
    `Rewards differ in only ${groups} of the last ${of} groups (mean reward ${level}): equal rewards teach nothing. ` +
    "Where all fail, make the task easier or the reward finer; where all succeed, take harder scenarios or stop; " +
    "larger groups and a higher temperature help too."
  );
}

function oneAnswer(now: StepRecord, history: readonly StepRecord[]): string | null {
  const share = topShare(now);
  if (share < 0.9 || now.variance.of < 4 || topShare(history[0] ?? now) >= 0.6) return null;
  return (
    `${Math.round(100 * share)}% of the rollouts end with the same answer, whatever the scenario: ` +
    `"${now.answers.top[0]?.answer}". The policy may have collapsed onto it: go back to an earlier policy, ` +
    "take a lower learning rate, and see whether the reward pays for this answer everywhere."
  );
}

function topShare({ answers, rollouts }: StepRecord): number {
  return rollouts === 0 ? 0 : (answers.top[0]?.count ?? 0) / rollouts;
}

function lengths(now: StepRecord, history: readonly StepRecord[]): string | null {
  const first = history.slice(0, 3).flatMap(({ tokens }) => (tokens ? [tokens.mean] : []));
  if (!now.tokens || history.length <= 3 || first.length === 0) return null;
  const ratio = now.tokens.mean / mean(first);
  if (ratio <= 2 && ratio >= 0.5) return null;
  return (
    `A rollout samples ${now.tokens.mean.toFixed(0)} tokens, ${mean(first).toFixed(0)} at the beginning. ` +
    "Where length itself does not help the task, the reward may pay for it: look at the longest and the shortest trajectories."
  );
}

function difference(now: StepRecord): string | null {
  const mostly = now.training["sampling/sampling_logp_difference/mean"];
  if (typeof mostly !== "number" || mostly <= 0.1) return null;
  return (
    `Sampler and trainer differ by ${mostly.toPrecision(2)} in the logprob of a token. The step corrects for it, ` +
    "but with noise: serve in a higher precision, and see that the engine was started as the guide says."
  );
}

function entropy(now: StepRecord, history: readonly StepRecord[]): string | null {
  const begun = history.slice(0, 3).flatMap(entropyOf);
  const [current] = entropyOf(now);
  if (current === undefined || history.length <= 3 || begun.length === 0) return null;
  if (current >= mean(begun) * 0.1) return null;
  return (
    `The entropy of the answers fell from ${mean(begun).toPrecision(2)} to ${current.toPrecision(2)}: there is little ` +
    "left to explore. If the held-out score still rises, all is well; if not, take a lower learning rate."
  );
}

function entropyOf({ training }: StepRecord): number[] {
  const value = training["entropy"];
  return typeof value === "number" ? [value] : [];
}

function learning(now: StepRecord, history: readonly StepRecord[]): string | null {
  const trained = history.filter((step) => step.trained && step.reward !== null);
  if (trained.length < patience || !now.trained) return null;
  const rewards = trained.map(({ reward }) => reward?.mean ?? 0);
  const first = rewards.slice(0, window);
  const last = rewards.slice(-window);
  const rise = mean(last) - mean(first);
  // Two standard errors of the difference of two means of steps.
  const noise = 2 * Math.sqrt((spread(first) + spread(last)) / window);
  if (rise > noise) return null;
  return (
    `After ${trained.length} steps the reward has not risen beyond its noise (${mean(first).toPrecision(3)} → ` +
    `${mean(last).toPrecision(3)}). Try a learning rate three times as high, more groups or larger ones, or a reward with ` +
    "more grades; and see in the trajectories whether better answers ever occur: what is never sampled cannot be learnt."
  );
}

function spread(values: readonly number[]): number {
  const centre = mean(values);
  return values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1);
}

function failures(now: StepRecord): string | null {
  const all = now.rollouts + now.failed;
  if (all === 0 || now.failed / all <= 0.2) return null;
  return `${now.failed} of ${all} rollouts failed. Their exceptions stand in the trajectories' file of this step.`;
}

const rules: readonly [Warning["code"], Rule][] = [
  ["no_variance", variance],
  ["one_answer", oneAnswer],
  ["length_drift", lengths],
  ["sampler_difference", difference],
  ["entropy_low", entropy],
  ["nothing_learnt", learning],
  ["rollouts_fail", failures],
];
