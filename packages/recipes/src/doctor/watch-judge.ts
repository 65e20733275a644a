import {
  HoneError,
  printableLine,
  refuseUnknownOptions,
  requireNumber,
  type Trajectory,
  type TrajectoryGroup,
} from "@hone/core";
import type { ScoreHow } from "@hone/client/run";
import type { Judgement } from "@hone/ruler";
import { judgeReport, type JudgeReport } from "./examine.ts";
import type { GroupJudging } from "./judge.ts";
import { findingsOf, type Finding } from "./verdict.ts";

type Score = (
  groups: TrajectoryGroup[],
  how: ScoreHow,
) => TrajectoryGroup[] | Promise<TrajectoryGroup[]>;

export interface WatchJudgeOptions {
  /** What a rollout is worth in truth; null where nobody knows. @default nobody knows */
  gold?: ((trajectory: Trajectory) => number | null) | undefined;
  /** Groups that the figures are of: the newest ones. @default 50 */
  window?: number | undefined;
  /** Groups that have to be judged before a warning. @default 24 */
  least?: number | undefined;
  /** Where the scale of the judge ends. @default 0 and 1 where RULER judged, otherwise unknown */
  scale?: { low: number; high: number } | undefined;
  /** Is told of each warning. @default the console */
  onWarning?: ((warning: JudgeWarning) => void) | undefined;
}

/** What the doctor would say of a judge in a run, by its thresholds. `fail`: it cannot teach as it is. */
export interface JudgeWarning extends Finding {
  /** Groups that it was found in. */
  groups: number;
}

const optionNames = ["gold", "window", "least", "scale", "onWarning"] as const;

/**
 * A task's `score` whose judge is watched while it trains: the doctor's figures over the newest groups stand in the
 * metrics of the rollouts (`judge/variance`, `judge/valid`, …), and each condition that the doctor warns of is warned of
 * once, and once more where it becomes a failure. A line of it stands in the logs of the step's first group. Groups of
 * `rulerScoreGroup` say each pass by itself, so that noise (`passes` of 2 and more) and a liking for a place are seen;
 * of other scores only the rewards are. Evaluations pass through. The window begins empty at each start of a program.
 */
export function watchJudge(score: Score, options: WatchJudgeOptions = {}): Score {
  const { gold = () => null, window, least, scale, onWarning } = readOptions(score, options);
  let newest: { judging: GroupJudging; gold: (number | null)[] }[] = [];
  const said = new Map<string, Finding["level"]>();

  function warningsOf(report: JudgeReport): JudgeWarning[] {
    if (newest.length < least) return [];
    return findingsOf(report).flatMap((finding) => {
      const before = said.get(finding.figure);
      if (before === finding.level || before === "fail") return [];
      said.set(finding.figure, finding.level);
      return { ...finding, groups: newest.length };
    });
  }

  return async (groups, how) => {
    const scored = await score(groups, how);
    if (how.mode === "eval") return scored;
    const judged = scored.filter(({ trajectories }) => trajectories.length > 1);
    newest = [
      ...newest,
      ...judged.map((group) => ({
        judging: judgingOf(group),
        gold: group.trajectories.map(gold),
      })),
    ].slice(-window);
    if (newest.length === 0) return scored;
    const ruler = scored.some((group) => judgementOf(group) !== null);
    const ends = scale ?? (ruler ? { low: 0, high: 1 } : null);
    const report = judgeReport(
      { label: "judge", scale: ends },
      newest.map(({ judging }) => judging),
      newest.map((one) => one.gold),
    );
    const warnings = warningsOf(report);
    for (const warning of warnings) onWarning(warning);
    const lines = warnings.map(
      ({ level, figure, reason }) => `judge, ${figure} (${level}): ${reason}`,
    );
    return scored.map((group, at) => ({
      ...group,
      ...(at === 0 && { logs: [...group.logs, ...lines] }),
      trajectories: group.trajectories.map((one) => ({
        ...one,
        metrics: { ...one.metrics, ...metricsOf(report) },
      })),
    }));
  };
}

function readOptions(score: unknown, options: WatchJudgeOptions) {
  if (typeof score !== "function") {
    throw new HoneError("watchJudge(): the first argument is no function. Give the task's score.", {
      code: "invalid_config",
      param: "score",
    });
  }
  refuseUnknownOptions("watchJudge()", options, optionNames);
  const { window = 50, least = Math.min(24, window), onWarning = inConsole } = options;
  requireNumber("window", window, { least: 6, whole: true });
  requireNumber("least", least, { least: 6, most: window, whole: true });
  return { ...options, window, least, onWarning };
}

function inConsole({ level, reason, groups }: JudgeWarning): void {
  const verdict = level === "fail" ? "cannot teach as it is" : "needs watching";
  console.warn(printableLine(`The judge ${verdict} (newest ${groups} groups). ${reason}`));
}

function judgementOf(group: TrajectoryGroup): Judgement | null {
  const { judgement } = group as { judgement?: Judgement };
  return judgement && Array.isArray(judgement.passes) ? judgement : null;
}

/** One judging for each pass where RULER judged, else one: the rewards. */
function judgingOf(group: TrajectoryGroup): GroupJudging {
  const judgement = judgementOf(group);
  // What it took, and how long, RULER's own metrics say.
  const unknown = { costUsd: null, seconds: 0, error: null };
  if (judgement) {
    const { status, passes, failedPasses, repairs } = judgement;
    const asked = status === "zero_variance" ? 0 : Math.max(1, passes.length + failedPasses);
    return { ...unknown, judgings: passes, asked, repaired: repairs };
  }
  const scores = group.trajectories.map(({ reward }) => reward);
  const none = scores.every((one) => one === null);
  // Equal outputs that no judge was asked about.
  const asked = none && group.metadata["failed"] === "zero_variance" ? 0 : 1;
  return { ...unknown, judgings: none ? [] : [{ scores, places: null }], asked, repaired: 0 };
}

function metricsOf(report: JudgeReport): Record<string, number> {
  const { judgings, variance, zeroVariance, rankAccuracy, noiseRatio, saturation } = report;
  const figures = {
    variance: variance?.value,
    zero_variance: zeroVariance?.value,
    valid: judgings.asked > 0 ? judgings.valid / judgings.asked : undefined,
    accuracy: rankAccuracy?.value,
    noise_ratio: noiseRatio?.value,
    position_bias: report.positionBias?.value,
    saturation: saturation?.value,
  };
  return Object.fromEntries(
    Object.entries(figures).flatMap(([name, value]) =>
      value === undefined ? [] : [[`judge/${name}`, value]],
    ),
  );
}
