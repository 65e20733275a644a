import { chart, markShapes, type Panel, type Point, type Reference, type Series } from "./chart.ts";
import type { EvaluationRecord } from "./evaluation-record.ts";
import { evaluationSeries } from "./evaluation-series.ts";
import type { StepRecord } from "./step-record.ts";

export type RunRecord = StepRecord | EvaluationRecord;

const colors = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7d91", "#bf3989"];

/** What a run draws beside the panels that every run has. */
export interface CurvesOptions {
  /**
   * Values that the held-out scores are to be compared with: metric → name → value. Of a simple rule, say, or
   * of the best that there is.
   */
  references?: Readonly<Record<string, Readonly<Record<string, number>>>> | undefined;
  /** Panels of the rollouts' own metrics, means over a step: title → metric → its name in the picture. */
  panels?: Readonly<Record<string, Readonly<Record<string, string>>>> | undefined;
}

/** The curves of a run: what was rewarded, whether there was anything to learn, and what it cost. */
export function curves(
  title: string,
  records: readonly RunRecord[],
  options: CurvesOptions = {},
): string {
  return chart(title, panelsOf(records, options));
}

function panelsOf(
  records: readonly RunRecord[],
  { references = {}, panels = {} }: CurvesOptions,
): Panel[] {
  const steps = records.filter((record) => record.type === "step");
  const evaluations = records.filter((record) => record.type === "evaluation");
  const pick = (read: (step: StepRecord) => number | null | undefined): Point[] =>
    steps.flatMap((step) => {
      const y = read(step);
      return typeof y === "number" && Number.isFinite(y) ? [{ x: step.step, y }] : [];
    });
  const one = (title: string, points: Point[], rest: Partial<Panel> = {}): Panel => ({
    title,
    series: [{ name: title, color: colors[0] ?? "", points }],
    ...rest,
  });
  return [
    ...evaluationPanels(evaluations, references),
    ...Object.entries(panels).map(([panel, metrics]) => ({
      title: panel,
      series: Object.entries(metrics).map(([metric, name], i) => ({
        name,
        color: colors[i % colors.length] ?? "",
        points: pick((step) => step.metrics[metric]),
      })),
    })),
    one(
      "training reward",
      steps.flatMap(({ step, reward }) =>
        reward ? [{ x: step, y: reward.mean, low: reward.low, high: reward.high }] : [],
      ),
    ),
    one(
      "share of groups with variance",
      pick(({ variance }) => (variance.of > 0 ? variance.groups / variance.of : null)),
      { fromZero: true },
    ),
    one(
      "entropy of the answers",
      pick(({ training }) => training["entropy"]),
      { fromZero: true },
    ),
    one(
      "share of the most frequent answer",
      pick(({ answers, rollouts }) =>
        rollouts > 0 ? (answers.top[0]?.count ?? 0) / rollouts : null,
      ),
      { fromZero: true },
    ),
    {
      title: "sampler/trainer difference of logprobs",
      logarithmic: true,
      series: [
        ["mean", "sampling/sampling_logp_difference/mean"] as const,
        ["max", "sampling/sampling_logp_difference/max"] as const,
      ].map(([name, key], i) => ({
        name,
        color: colors[i] ?? "",
        points: pick(({ training }) => training[key]).filter(({ y }) => y > 0),
      })),
    },
    one(
      "sampled tokens of a rollout",
      steps.flatMap(({ step, tokens }) =>
        tokens ? [{ x: step, y: tokens.mean, low: tokens.min, high: tokens.max }] : [],
      ),
      { fromZero: true },
    ),
    one(
      "sampled tokens a second",
      pick(({ tokensPerSecond }) => tokensPerSecond),
      {
        fromZero: true,
      },
    ),
    { title: "seconds", fromZero: true, series: secondsOf(steps) },
  ];
}

/**
 * A panel for each metric: scores of different metrics share no axis. Models elsewhere are lines to compare
 * with; as marks they would look like a policy of the run.
 */
function evaluationPanels(
  evaluations: readonly EvaluationRecord[],
  references: NonNullable<CurvesOptions["references"]>,
): Panel[] {
  const all = evaluationSeries(evaluations);
  return [...new Set(all.map(({ metric }) => metric))].map((metric) => {
    const series = all.filter((one) => one.metric === metric);
    const newest = series
      .filter(({ comparison }) => comparison)
      .flatMap(({ label, scores }) => scores.slice(-1).map(({ mean }) => [label, mean] as const));
    return {
      title: `held out: ${metric} (95% intervals)`,
      series: series
        .filter(({ comparison }) => !comparison)
        .map(({ label, scores }, i): Series => ({
          name: label,
          color: colors[i % colors.length] ?? "",
          points: scores.map(({ step, mean, ...interval }) => ({ x: step, y: mean, ...interval })),
          marks: markShapes[Math.floor(i / colors.length) % markShapes.length],
        })),
      references: [...Object.entries(references[metric] ?? {}), ...newest].map(
        ([name, y]): Reference => ({ name, y }),
      ),
    };
  });
}

/** The stages that take the most time; the rest would only be lines at the bottom. */
function secondsOf(steps: readonly StepRecord[]): Series[] {
  const totals = new Map<string, number>();
  for (const { seconds } of steps) {
    for (const [stage, spent] of Object.entries(seconds)) {
      totals.set(stage, (totals.get(stage) ?? 0) + spent);
    }
  }
  return [...totals]
    .sort(([, a], [, b]) => b - a)
    .slice(0, 5)
    .map(([stage], i) => ({
      name: stage,
      color: colors[i] ?? "",
      points: steps.flatMap(({ step, seconds }) => {
        const y = seconds[stage];
        return y === undefined ? [] : [{ x: step, y }];
      }),
    }));
}

const blocks = "▁▂▃▄▅▆▇█";

/** A curve in one line: `0.21 ▁▂▄▆█ 0.93`. Longer ones are averaged down to `width`. */
export function sparkline(values: readonly number[], width = 40): string {
  const [first] = values;
  const last = values.at(-1);
  if (first === undefined || last === undefined) return "";
  const count = Math.min(width, values.length);
  const cells = Array.from({ length: count }, (_, i) => {
    const from = Math.floor((i * values.length) / count);
    const part = values.slice(from, Math.floor(((i + 1) * values.length) / count));
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
  const least = Math.min(...cells);
  const range = Math.max(...cells) - least;
  const line = cells.map(
    (value) => blocks[range === 0 ? 3 : Math.round(((value - least) / range) * 7)],
  );
  return `${short(first)} ${line.join("")} ${short(last)}`;
}

/** Three digits are enough for a curve. */
export function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
