import { percent, short } from "../stopping/figure-text.ts";
import type { ProbeFigures } from "./probe-figures.ts";

/** What to do before paying for a run. */
export type ProbeVerdict = "go" | "change_the_prompt" | "change_the_reward" | "no_go";

export interface Judged {
  verdict: ProbeVerdict;
  /** Why, in words; what decides stands first. */
  reasons: string[];
}

/** Our own thresholds, as shares: no publication has them. */
const thresholds = {
  /** More failed rollouts than this, and the run would stop. As many groups at which the judge failed are as bad. */
  failed: 0.1,
  /** Groups whose rewards differ: below the first a run learns next to nothing, below the second slowly. */
  variedLeast: 0.1,
  variedFew: 0.25,
  /** Turns cut at their limit. */
  cut: 0.3,
  /** The judge's noise over the variance within groups. */
  noise: 0.5,
  /** From here on nothing is left to learn. */
  solved: 0.95,
  /** Rollouts with the same answers whatever the scenario. */
  commonest: 0.9,
} as const;

/** What of the run's `train` decides what counts. */
interface Training {
  type?: string | undefined;
  allowConstrained?: boolean | undefined;
}

const taught =
  "The objective learns from a teacher's logprobs: whether rewards differ does not matter to it.";

interface Finding {
  verdict: ProbeVerdict;
  reason: string;
}

/** What the figures say. Findings that stop a run come first, then those that slow it down, then those that speak for it. */
export function judgeFigures(
  figures: ProbeFigures,
  noise: number | null,
  train: Training = {},
): Judged {
  const byTeacher = train.type === "distill";
  const rules = byTeacher
    ? [...rulesOfRollouts, cutAnswers]
    : [...rulesOfRollouts, ...rulesOfRewards];
  // What a step trains all the same is nothing to be against.
  const seen = train.allowConstrained ? { ...figures, constrained: 0 } : figures;
  const findings = rules.flatMap((rule) => rule(seen, noise) ?? []);
  if (byTeacher) findings.push({ verdict: "go", reason: taught });
  const against = findings.filter(({ verdict }) => verdict !== "go");
  const first = against.find(({ verdict }) => verdict === "no_go") ?? against[0];
  if (!first) return { verdict: "go", reasons: findings.map(({ reason }) => reason) };
  const rest = findings.filter((one) => one !== first);
  return { verdict: first.verdict, reasons: [first, ...rest].map(({ reason }) => reason) };
}

type Rule = (figures: ProbeFigures, noise: number | null) => Finding | null;

const rulesOfRollouts: readonly Rule[] = [
  ({ failed, rollouts, lastFailure }) => {
    const share = failed / Math.max(1, failed + rollouts);
    if (share <= thresholds.failed) return null;
    return {
      verdict: "no_go",
      reason: `${failed} of ${failed + rollouts} rollouts failed, and a run stops above ${percent(thresholds.failed)}: mend the rollout first. The last one: ${lastFailure}`,
    };
  },
  ({ constrained }) =>
    constrained < 0.5
      ? null
      : {
          verdict: "no_go",
          reason: `${percent(constrained)} of the completions would not be trained: the agent asks for temperature 0, top_p below 1, a penalty or a grammar. Ask for the temperature that the rollout is given, or train with allowConstrained.`,
        },
];

const cutAnswers: Rule = ({ cut }) =>
  cut <= thresholds.cut
    ? null
    : {
        verdict: "change_the_prompt",
        reason: `${percent(cut)} of the answers were cut at their limit of tokens: ask for shorter ones, or raise answerTokens.`,
      };

/** Beside those of rollouts, where rewards are learnt from. */
const rulesOfRewards: readonly Rule[] = [
  ({ unjudged, groups }) =>
    !unjudged || unjudged.groups / groups <= thresholds.failed
      ? null
      : {
          verdict: "no_go",
          reason: `The judge failed at ${unjudged.groups} of ${groups} groups, which would train nothing: mend it first. The last one: ${unjudged.why}`,
        },
  ({ reward, unjudged, groups }) =>
    reward || unjudged?.groups === groups
      ? null
      : {
          verdict: "change_the_reward",
          reason:
            "No rollout has a reward: return a number from it, or let the task's score give one.",
        },
  ({ pass, reward }) =>
    !pass || pass.at1 < thresholds.solved || !reward
      ? null
      : {
          verdict: "no_go",
          reason: `The base passes in ${percent(pass.at1)} of the rollouts already: take harder scenarios or a stricter reward.`,
        },
  unvaried,
  cutAnswers,
  ({ commonest, varied }) =>
    commonest < thresholds.commonest || varied.groups === 0
      ? null
      : {
          verdict: "change_the_prompt",
          reason: `${percent(commonest)} of the rollouts have the same answers whatever the scenario: see whether the prompt shows the scenario to the model.`,
        },
  (_, noise) =>
    noise === null || noise <= thresholds.noise
      ? null
      : {
          verdict: "change_the_reward",
          reason: `Judged again in another order, the rewards move by ${percent(noise)} of the variance within groups (at most ${percent(thresholds.noise)} wanted): a clearer rubric, a stronger judge or several passes make it less.`,
        },
  ({ varied, pass, reward }) => {
    if (!reward || varied.of === 0 || varied.groups / varied.of < thresholds.variedLeast)
      return null;
    const few = varied.groups / varied.of < thresholds.variedFew;
    const shown = `Rewards differ in ${varied.groups} of ${varied.of} groups`;
    const learns = pass
      ? `; ${percent(pass.at1)} of the rollouts pass, and ${percent(pass.atK)} of the scenarios in at least one of ${pass.k}`
      : "";
    return {
      verdict: "go",
      reason: `${shown}${learns}.${few ? " That is little: a run with `fill` or larger groups wastes less." : ""}`,
    };
  },
];

/** Equal rewards teach nothing. Whether the prompt or the reward is to be changed, their level says. */
function unvaried({ reward, varied, pass }: ProbeFigures): Finding | null {
  if (!reward) return null;
  if (varied.of === 0) {
    return {
      verdict: "no_go",
      reason: "No group has two rewards to compare: play more rollouts of each scenario.",
    };
  }
  if (varied.groups / varied.of >= thresholds.variedLeast) return null;
  const differ = `Rewards differ in ${varied.groups} of ${varied.of} groups, so that there is next to nothing to learn from`;
  if (pass && pass.atK === 0 && reward.most === reward.least) {
    return {
      verdict: "change_the_prompt",
      reason: `${differ}: no rollout passes, and all have the same reward (${short(reward.mean)}). What is never sampled cannot be learnt: show an example in the prompt, make the task easier, or train on demonstrations first (warmUp).`,
    };
  }
  return {
    verdict: "change_the_reward",
    reason: `${differ} (mean reward ${short(reward.mean)}): give it more grades, or take scenarios that succeed now and then.`,
  };
}
