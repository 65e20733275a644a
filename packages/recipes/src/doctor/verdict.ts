import type { Estimate } from "./statistics.ts";

/** Whether a judge can teach, and why. `good` has reasons too, where something is to be watched. */
export interface Verdict {
  level: "good" | "warn" | "fail";
  reasons: string[];
}

/** Our thresholds: the paper gives none. docs/judges.md says where they come from. */
export const thresholds = {
  variance: { warn: 0.3, fail: 0.15 },
  /** Of the variance within groups, what is noise between re-judgings. */
  noiseRatio: { warn: 0.5, fail: 0.8 },
  /** What the place adds, in standard deviations within a group. */
  positionBias: { warn: 0.5, fail: 1 },
  valid: { warn: 0.95, fail: 0.8 },
  /** Both together: a judge of yes and no lies at the ends of its scale by its nature. */
  saturation: { warn: 0.5 },
  zeroVariance: { warn: 0.5 },
} as const;

interface Figures {
  judgings: { asked: number; valid: number; repaired: number };
  variance: Estimate | null;
  zeroVariance: Estimate | null;
  rankAccuracy: Estimate | null;
  noiseRatio: Estimate | null;
  positionBias: Estimate | null;
  positionBiasInDeviations: number | null;
  saturation: Estimate | null;
}

/** Something that speaks against a judge. */
export interface Finding {
  figure: "valid" | "variance" | "accuracy" | "noise_ratio" | "position_bias" | "saturation";
  level: "warn" | "fail";
  /** In words, with what to do about it. */
  reason: string;
}

/** All that the figures say against a judge, by the thresholds. */
export function findingsOf(figures: Figures): Finding[] {
  return rules.flatMap(([figure, rule]) => {
    const found = rule(figures);
    return found ? { figure, level: found[0], reason: found[1] } : [];
  });
}

export function verdictOf(figures: Figures): Verdict {
  const found = findingsOf(figures);
  const level = found.some((one) => one.level === "fail")
    ? "fail"
    : found.length > 0
      ? "warn"
      : "good";
  if (found.length === 0) {
    return {
      level,
      reasons: [
        "It tells the policy's outputs apart, repeats itself and has no liking for a place.",
      ],
    };
  }
  return { level, reasons: found.map(({ reason }) => reason) };
}

type Rule = (figures: Figures) => [Finding["level"], string] | null;

const rules: readonly [Finding["figure"], Rule][] = [
  [
    "valid",
    ({ judgings: { asked, valid, repaired } }) => {
      if (asked === 0) {
        return [
          "fail",
          "All outputs of each group are alike, so that no judge has anything to compare: take harder scenarios or a higher temperature.",
        ];
      }
      const share = valid / asked;
      const level = levelBelow(share, thresholds.valid);
      if (level === null) return null;
      if (valid === 0) {
        return [level, `None of its ${asked} judgings was valid: it would train nothing.`];
      }
      const again = repaired > 0 ? `, ${repaired} of them only when asked again` : "";
      return [
        level,
        `${percent(share)} of its judgings were valid${again}: the other groups would train nothing.`,
      ];
    },
  ],
  [
    "variance",
    ({ variance }) => {
      const level = variance && levelBelow(variance.value, thresholds.variance);
      if (!level) return null;
      const { warn, fail } = thresholds.variance;
      return [
        level,
        `Little of the variance of its scores lies within groups (${variance.value.toFixed(2)}; below ${warn} is a warning, below ${fail} too little): it tells scenarios apart rather than the outputs of one, and training on it is slow, however accurate it is. A finer rubric or scale helps; scaling the rewards up does not.`,
      ];
    },
  ],
  [
    "accuracy",
    ({ rankAccuracy }) => {
      if (!rankAccuracy || rankAccuracy.low === null || rankAccuracy.high === null) return null;
      if (rankAccuracy.high < 0.5) {
        return [
          "fail",
          `It orders outputs against gold (${percent(rankAccuracy.value)} of the pairs that gold tells apart, and guessing gives 50%): training on it would make the policy worse.`,
        ];
      }
      if (rankAccuracy.low > 0.5) return null;
      return [
        "fail",
        `It agrees with gold no more than guessing does (${percent(rankAccuracy.value)} of the pairs that gold tells apart, interval ${percent(rankAccuracy.low)} to ${percent(rankAccuracy.high)}).`,
      ];
    },
  ],
  [
    "noise_ratio",
    ({ noiseRatio }) => {
      const level = noiseRatio && levelAbove(noiseRatio.value, thresholds.noiseRatio);
      if (!level) return null;
      return [
        level,
        `${percent(noiseRatio.value)} of what tells outputs apart in one judging is noise that another judging does not repeat: judge in several passes, which divides it by their number, or order close groups by a tournament.`,
      ];
    },
  ],
  [
    "position_bias",
    ({ positionBias, positionBiasInDeviations: size }) => {
      if (!positionBias || size === null || positionBias.low === null || positionBias.high === null)
        return null;
      if (positionBias.low <= 0 && positionBias.high >= 0) return null;
      const level = levelAbove(Math.abs(size), thresholds.positionBias);
      if (!level) return null;
      return [
        level,
        `It likes outputs for being shown ${size > 0 ? "last" : "first"} (${signed(positionBias.value)} from first to last, ${Math.abs(size).toFixed(1)} deviations): judge in an even number of passes, of which each second one reverses the order.`,
      ];
    },
  ],
  [
    "saturation",
    ({ saturation, zeroVariance }) => {
      // A judge of yes and no lies at the ends by its nature: it is too coarse where its groups are all equal too.
      if (!saturation || saturation.value <= thresholds.saturation.warn) return null;
      if (!zeroVariance || zeroVariance.value <= thresholds.zeroVariance.warn) return null;
      return [
        "warn",
        `${percent(saturation.value)} of its scores lie at an end of its scale and ${percent(zeroVariance.value)} of the groups have equal scores, which teach nothing: take harder or easier scenarios, or a rubric that leaves room.`,
      ];
    },
  ],
];

function levelBelow(value: number, { warn, fail }: { warn: number; fail: number }) {
  return value < fail ? "fail" : value < warn ? "warn" : null;
}

function levelAbove(value: number, { warn, fail }: { warn: number; fail: number }) {
  return value > fail ? "fail" : value > warn ? "warn" : null;
}

export const percent = (share: number): string => `${Math.round(100 * share)}%`;
const signed = (value: number): string => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
