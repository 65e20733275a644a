import { printableLine } from "@hone/core";
import { mean } from "../statistics.ts";
import type { EvaluationRecord } from "./evaluation-record.ts";
import { evaluationSeries } from "./evaluation-series.ts";
import type { StepRecord } from "./step-record.ts";

export interface Warning {
  code:
    | "no_variance"
    | "no_rewards"
    | "judge_fails"
    | "fill_bound"
    | "one_answer"
    | "length_drift"
    | "sampler_difference"
    | "entropy_low"
    | "clip_idle"
    | "clip_always"
    | "nothing_learnt"
    | "cannot_tell"
    | "rollouts_fail"
    | "history_split"
    | "overlap_waits";
  message: string;
}

/** Steps at most that the beginning and the end of a run are judged by. */
const window = 5;

/** What is known of the run besides its steps. */
export interface RunSoFar {
  /** Steps of the whole run. */
  plannedSteps?: number | undefined;
  evaluations?: readonly EvaluationRecord[] | undefined;
}

/** What the curve says in words, with what to try. `history` ends with the step that is judged. */
export function adviceFor(history: readonly StepRecord[], run: RunSoFar = {}): Warning[] {
  const now = history.at(-1);
  if (!now) return [];
  return rules.flatMap(([code, rule]) => {
    const message = rule(now, history, run);
    return message === null ? [] : [{ code, message }];
  });
}

type Rule = (now: StepRecord, history: readonly StepRecord[], run: RunSoFar) => string | null;

/** The last groups where few of them can train; null where that is not so. */
function fewTrain(history: readonly StepRecord[]) {
  const recent = history.slice(-3);
  const groups = recent.reduce((sum, { variance: { groups: live } }) => sum + live, 0);
  const of = recent.reduce((sum, step) => sum + step.variance.of, 0);
  if (of === 0 || groups / of >= 0.25) return null;
  const levels = recent.flatMap(({ reward }) => (reward ? [reward.mean] : []));
  const failed = recent.reduce((sum, { reasons }) => sum + (reasons["judge_failed"] ?? 0), 0);
  return { groups, of, levels, failed };
}

function judging(_: StepRecord, history: readonly StepRecord[]): string | null {
  const few = fewTrain(history);
  if (!few || few.levels.length > 0 || few.failed === 0) return null;
  return `The judge failed at ${few.failed} of the last ${few.of} groups, and nothing trains: what it said stands in the logs of their trajectories' files.`;
}

function rewarding(_: StepRecord, history: readonly StepRecord[]): string | null {
  const few = fewTrain(history);
  if (!few || few.levels.length > 0 || few.failed > 0) return null;
  return (
    `None of the rollouts of the last ${few.of} groups has a reward, so that nothing trains: return a number from the ` +
    "rollout, or have a judge score the groups before they are trained on."
  );
}

function variance(_: StepRecord, history: readonly StepRecord[]): string | null {
  const few = fewTrain(history);
  if (!few || few.levels.length === 0) return null;
  const { groups, of, levels } = few;
  return (
    `Rewards differ in only ${groups} of the last ${of} groups (mean reward ${mean(levels).toPrecision(2)}): equal rewards teach nothing. ` +
    "Where all fail, make the task easier or the reward finer; where all succeed, take harder scenarios or stop; " +
    "larger groups and a higher temperature help too."
  );
}

function unfilled({ fill }: StepRecord): string | null {
  if (!fill || fill.missing === 0) return null;
  return (
    `The batch is not full: ${fill.drawn} scenarios were played for ${fill.wanted}, the most that fill allows, and rewards ` +
    `differ in ${fill.kept} groups. ${fill.kept > 0 ? "These were trained" : "Nothing was trained"}. ` +
    "Give a greater maxFactor, larger groups, or scenarios that succeed now and then."
  );
}

function oneAnswer(now: StepRecord, history: readonly StepRecord[]): string | null {
  const share = topShare(now);
  if (share < 0.9 || now.variance.of < 4) return null;
  const first = topShare(history.find(({ rollouts }) => rollouts > 0) ?? now);
  const risen = first < 0.6 || (share >= 0.95 && share - first >= 0.1);
  if (!risen && !isStuck(history)) return null;
  return (
    `${Math.round(100 * share)}% of the rollouts end with the same answer, whatever the scenario: ` +
    `"${printableLine(now.answers.top[0]?.answer ?? "")}". The policy may have collapsed onto it: go back to an earlier policy, ` +
    "take a lower learning rate, and see whether the reward pays for this answer everywhere."
  );
}

/** The last few steps gave one answer and no two rewards of a group differed: nothing leads away from it. */
function isStuck(history: readonly StepRecord[]): boolean {
  const recent = history.slice(-3);
  return (
    recent.length === 3 &&
    recent.every((step) => topShare(step) >= 0.95 && step.variance.groups === 0)
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

/** How much is too much depends on the precision of the base: the server knows it and warns. */
function difference({ training, warnings }: StepRecord): string | null {
  const mostly = training["sampling/sampling_logp_difference/mean"];
  const warned = warnings.some(({ code, message }) => code === "server" && /logprob/.test(message));
  if (typeof mostly !== "number" || !warned) return null;
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

/** Steps that the gradient's clip is judged by. It is told of every so many steps, not in each. */
const clipWindow = 10;
/** A clip that is so many times the largest norm lets every outlier through. */
const farBelow = 20;

/** What the clip of the gradient's norm was in the last steps; null between the steps at which it is judged. */
function clipOf(now: StepRecord, history: readonly StepRecord[]): GradientClip | null {
  const trained = history.filter(({ trained: made }) => made);
  if (!now.trained || trained.length === 0 || trained.length % clipWindow !== 0) return null;
  const recent = trained.slice(-clipWindow).flatMap(({ training }) => {
    const { grad_norm: norm, grad_clip_ratio: cut, max_grad_norm: limit } = training;
    const known = typeof norm === "number" && typeof cut === "number" && typeof limit === "number";
    return known ? [{ norm, cut, limit }] : [];
  });
  const limit = recent.at(-1)?.limit;
  if (recent.length < clipWindow || limit === undefined) return null;
  return { norms: recent.map(({ norm }) => norm), cuts: recent.map(({ cut }) => cut), limit };
}

interface GradientClip {
  norms: number[];
  /** Of each step the share of its optimizer steps in which it acted. */
  cuts: number[];
  limit: number;
}

/** Three times the usual norm: what only outliers reach. */
function aboveUsual({ norms }: GradientClip): number {
  return Number((3 * mean(norms)).toPrecision(1));
}

function clipIdle(now: StepRecord, history: readonly StepRecord[]): string | null {
  const clip = clipOf(now, history);
  if (!clip || clip.cuts.some((cut) => cut > 0)) return null;
  const largest = Math.max(...clip.norms);
  if (largest * farBelow > clip.limit) return null;
  return (
    `The gradient's norm was ${largest.toPrecision(2)} at most in the last ${clipWindow} steps, and is cut above ${clip.limit}: ` +
    `an outlier of ${Math.floor(clip.limit / largest)} times that size passes whole. Set maxGradNorm to about ${aboveUsual(clip)}, ` +
    "or leave out normalizerTokens, where you give it."
  );
}

function clipAlways(now: StepRecord, history: readonly StepRecord[]): string | null {
  const clip = clipOf(now, history);
  if (!clip || clip.cuts.some((cut) => cut < 1)) return null;
  return (
    `The gradient was cut in each of the last ${clipWindow} steps (its norm is ${mean(clip.norms).toPrecision(2)}, the limit ${clip.limit}): ` +
    "steps with a clear signal count no more than others. Set maxGradNorm to about " +
    `${aboveUsual(clip)}, so that only outliers are cut.`
  );
}

/** Steps after which a reward should have risen; a shorter run is judged at its end. */
function patienceFor(plannedSteps: number | undefined): number {
  return plannedSteps === undefined ? 12 : Math.min(15, Math.max(8, plannedSteps));
}

const whatToTry =
  "Try a learning rate three times as high, more groups or larger ones, or a reward with " +
  "more grades; and see in the trajectories whether better answers ever occur: what is never sampled cannot be learnt.";

function learning(
  now: StepRecord,
  history: readonly StepRecord[],
  { plannedSteps, evaluations = [] }: RunSoFar,
): string | null {
  // Those that trained nothing too: where rewards do not differ, nothing is learnt either.
  const rewards = history.flatMap(({ reward }) => (reward ? [reward.mean] : []));
  if (rewards.length < patienceFor(plannedSteps) || !now.reward) return null;
  if (isRelative(history)) return notRisen(heldOutScores(evaluations), patienceFor(plannedSteps));
  const size = Math.min(window, Math.ceil(rewards.length / 3));
  const first = mean(rewards.slice(0, size));
  const last = mean(rewards.slice(-size));
  // Of the difference of two means of steps. Twice that would take too many runs that learn for runs that do
  // not: a rise of three times a step's noise is then missed in every fifth run of ten steps.
  const standardError = Math.sqrt(2 / size) * noiseOf(rewards);
  if (last - first > standardError) return null;
  return (
    `After ${rewards.length} steps the reward has not risen beyond its noise (${first.toPrecision(3)} → ` +
    `${last.toPrecision(3)}). ${whatToTry}`
  );
}

/** Said every so many steps: it does not change from one to the next. */
function unknowable(
  now: StepRecord,
  history: readonly StepRecord[],
  { plannedSteps, evaluations = [] }: RunSoFar,
): string | null {
  const patience = patienceFor(plannedSteps);
  const steps = history.filter(({ reward }) => reward !== null).length;
  if (steps === 0 || steps % patience !== 0 || !now.reward || !isRelative(history)) return null;
  if (heldOutScores(evaluations).some(({ scores }) => reaches(scores, patience))) return null;
  return (
    "Whether the policy improves cannot be told from these rewards: they compare the rollouts of a group with one another, " +
    'so that their mean stays where it is whatever is learnt. Gather held-out scenarios in mode "eval" before the first ' +
    "step and every few steps, and write them down with `log.evaluation` and a metric that does not come from comparing."
  );
}

/** Rewards that rank a group's rollouts against one another, as RULER's do: their level says nothing. */
function isRelative(history: readonly StepRecord[]): boolean {
  return history.some(({ metrics }) => metrics["ruler_score"] !== undefined);
}

type Scores = ReturnType<typeof evaluationSeries>[number];

function heldOutScores(evaluations: readonly EvaluationRecord[]): Scores[] {
  return evaluationSeries(evaluations.filter(({ relative }) => relative !== true)).filter(
    ({ comparison }) => !comparison,
  );
}

/** Two scores of which the later one is of a policy that had the time to learn. */
function reaches(scores: Scores["scores"], patience: number): boolean {
  return scores.length > 1 && (scores.at(-1)?.step ?? 0) >= patience / 2;
}

function notRisen(series: readonly Scores[], patience: number): string | null {
  const told = series.filter(({ scores }) => reaches(scores, patience));
  const still = told.filter(({ scores: [first, ...later] }) => {
    const last = later.at(-1);
    return first !== undefined && last !== undefined && last.mean <= first.mean;
  });
  if (told.length === 0 || still.length < told.length) return null;
  const values = still.map(({ metric, label, scores }) => {
    const [first, last] = [scores[0], scores.at(-1)];
    return `${metric} of ${label}: ${first?.mean.toPrecision(3)} → ${last?.mean.toPrecision(3)} after step ${last?.step}`;
  });
  return `The held-out scores have not risen (${values.join("; ")}). ${whatToTry}`;
}

/** Standard deviation of a step, from neighbours alone: a trend or a jump hardly adds to it. */
function noiseOf(values: readonly number[]): number {
  const squares = values.slice(1).map((value, i) => (value - (values[i] ?? value)) ** 2);
  return Math.sqrt(mean(squares) / 2);
}

function failures(now: StepRecord): string | null {
  const all = now.rollouts + now.failed;
  if (all === 0 || now.failed / all <= 0.2) return null;
  return `${now.failed} of ${all} rollouts failed. Their exceptions stand in the trajectories' file of this step.`;
}

/** Said of the first step that is so, and then every so many steps: a framework does the same all along. */
const splitWindow = 10;

function splits(now: StepRecord, history: readonly StepRecord[]): string | null {
  const costly = history.filter((step) => (step.splits?.share ?? 0) > 0.1);
  if (!now.splits || costly.at(-1) !== now || costly.length % splitWindow !== 1) return null;
  const { reasons, tokensAgain, share } = now.splits;
  const counted = Object.entries(reasons).map(([reason, count]) => `${reason}: ${count}`);
  const todo = Object.keys(reasons).map((reason) => whatSplits[reason as keyof typeof reasons]);
  return (
    `${Math.round(100 * share)}% more tokens than need be: turns could not extend the turn before (${counted.join(", ")}), so ` +
    `about ${tokensAgain} tokens of their histories were read, and trained through, once more. ${todo.join(" ")}`
  );
}

const whatSplits = {
  edited_history:
    "edited_history: the agent or its framework rewrites, trims or summarises what was said; switch that off, or do it less often.",
  tools_changed:
    'tools_changed: send the same tools in every turn, and tool_choice "none" where none may be called.',
  cannot_bridge:
    "cannot_bridge: the chat template of this base cannot be extended; that of a family with a renderer of its own can.",
} as const;

/** Steps that the waits of a run with overlap are judged by. It is told of every so many steps. */
const waitWindow = 10;

/** Said where one side stands still more than a third of the time, and three times as long as the other. */
function overlapWaits(_: StepRecord, history: readonly StepRecord[]): string | null {
  const known = history.filter(({ overlap }) => overlap !== undefined);
  // The first step has to wait for its rollouts.
  const recent = known.slice(1).slice(-waitWindow);
  if (recent.length < waitWindow || (known.length - 1) % waitWindow !== 0) return null;
  const sum = (read: (step: StepRecord) => number) =>
    recent.reduce((total, step) => total + read(step), 0);
  const rollouts = sum(({ overlap }) => overlap?.waitedForRollouts ?? 0);
  const training = sum(({ overlap }) => overlap?.waitedForTraining ?? 0);
  const share =
    Math.max(rollouts, training) / (sum(({ seconds }) => seconds["train"] ?? 0) + rollouts);
  if (!(share > 1 / 3) || Math.max(rollouts, training) < 3 * Math.min(rollouts, training))
    return null;
  const stands = `${Math.round(100 * share)}% of the last ${waitWindow} steps`;
  return rollouts > training
    ? `Training waited for rollouts for ${stands}: more rollouts at once (concurrency), more engines, shorter answers or smaller groups bring the two closer.`
    : `Rollouts waited for training for ${stands}: the time would be enough for larger groups or longer answers. Playing more batches ahead makes rollouts older and not faster.`;
}

const rules: readonly [Warning["code"], Rule][] = [
  ["judge_fails", judging],
  ["no_rewards", rewarding],
  ["no_variance", variance],
  ["fill_bound", unfilled],
  ["one_answer", oneAnswer],
  ["length_drift", lengths],
  ["sampler_difference", difference],
  ["entropy_low", entropy],
  ["clip_idle", clipIdle],
  ["clip_always", clipAlways],
  ["nothing_learnt", learning],
  ["cannot_tell", unknowable],
  ["rollouts_fail", failures],
  ["history_split", splits],
  ["overlap_waits", overlapWaits],
];
