import { mulberry32 } from "@hone/core";
import { describe, expect, it } from "vitest";
import { adviceFor } from "./advice.ts";
import type { EvaluationRecord } from "./evaluation-record.ts";
import type { StepRecord } from "./step-record.ts";

describe("advice", () => {
  const good: StepRecord = {
    type: "step",
    step: 1,
    policy: "m@1",
    trained: true,
    reasons: {},
    rollouts: 64,
    failed: 0,
    reward: { mean: 0.5, std: 0.3, low: 0.4, high: 0.6 },
    metrics: {},
    variance: { groups: 6, of: 8 },
    answers: { distinct: 40, top: [{ answer: "left", count: 10 }] },
    tokens: { mean: 50, min: 10, max: 90 },
    tokensPerSecond: 100,
    seconds: {},
    training: { entropy: 1, "sampling/sampling_logp_difference/mean": 1e-6 },
    warnings: [],
  };
  const codesOf = (history: StepRecord[]) => adviceFor(history).map(({ code }) => code);
  const rising = Array.from({ length: 20 }, (_, i) => ({
    ...good,
    step: i + 1,
    reward: { mean: 0.3 + 0.02 * i + (i % 2) * 0.01, std: 0.1, low: 0, high: 1 },
  }));
  const after = (change: Partial<StepRecord>) => [...rising, { ...rising[19]!, ...change }];

  /** So many of 64 rollouts say the same. */
  const answering = (count: number, groups = 6): StepRecord => ({
    ...rising[19]!,
    answers: { distinct: 2, top: [{ answer: "left", count }] },
    variance: { groups, of: 8 },
  });

  it("says what split histories cost, with figures, once in ten such steps", () => {
    const reasons = { edited_history: 30, tools_changed: 4 };
    const split: StepRecord = { ...good, splits: { reasons, tokensAgain: 5300, share: 0.23 } };
    const [warning] = adviceFor([split]);
    expect(warning!.message).toMatch(
      /^23% more tokens.*edited_history: 30, tools_changed: 4.*5300/,
    );
    expect(warning!.message).toMatch(/trims or summarises.*same tools in every turn/);
    const said = Array.from({ length: 21 }, (_, i) =>
      codesOf(Array.from({ length: i + 1 }, () => split)),
    );
    const at = said.flatMap((codes, i) => (codes.includes("history_split") ? [i] : []));
    expect(at).toEqual([0, 10, 20]);
    expect(codesOf([{ ...split, splits: { ...split.splits!, share: 0.1 } }])).toEqual([]);
  });

  it("is silent while a run goes well", () => {
    for (let n = 1; n <= rising.length; n++) expect(codesOf(rising.slice(0, n))).toEqual([]);
    expect(codesOf([])).toEqual([]);
  });

  it.each<[string, StepRecord[]]>([
    [
      "no_variance",
      [...rising, ...[1, 2, 3].map(() => ({ ...rising[19]!, variance: { groups: 1, of: 8 } }))],
    ],
    [
      "history_split",
      after({ splits: { reasons: { edited_history: 9 }, tokensAgain: 700, share: 0.12 } }),
    ],
    ["fill_bound", after({ fill: { wanted: 8, drawn: 24, equal: 18, kept: 6, missing: 2 } })],
    ["one_answer", after({ answers: { distinct: 2, top: [{ answer: "left", count: 60 }] } })],
    ["length_drift", after({ tokens: { mean: 140, min: 1, max: 300 } })],
    ["length_drift", after({ tokens: { mean: 20, min: 1, max: 30 } })],
    ["one_answer", [answering(42), ...rising, answering(62)]],
    [
      "sampler_difference",
      after({
        training: { "sampling/sampling_logp_difference/mean": 0.02 },
        warnings: [{ code: "server", message: "The engine's logprobs differ from the trainer's." }],
      }),
    ],
    ["entropy_low", after({ training: { entropy: 0.05 } })],
    ["nothing_learnt", rising.map((step, i) => ({ ...step, reward: rising[i % 2]!.reward }))],
    ["rollouts_fail", after({ rollouts: 40, failed: 24 })],
  ])("says %s in words, and what to try", (code, history) => {
    const found = adviceFor(history);
    expect(found.map((warning) => warning.code)).toEqual([code]);
    expect(found[0]?.message).toMatch(/^[A-Z0-9].{40,}\.$/s);
  });

  it("says after each ten steps which side of an overlap stands still, if one does", () => {
    const waits = (waitedForRollouts: number, waitedForTraining: number) =>
      rising.slice(0, 11).map((step) => ({
        ...step,
        seconds: { gather: 4, train: 4 },
        overlap: {
          ...{ played: 4, waitedForRollouts, waitedForTraining, resampled: 0 },
          staleness: { mean: 1, max: 1 },
        },
      }));
    expect(adviceFor(waits(4, 0))[0]?.message).toMatch(/Training waited for rollouts for 50%/);
    expect(adviceFor(waits(0, 3))[0]?.message).toMatch(/Rollouts waited for training for 75%/);
    expect(codesOf(waits(0.5, 0.5))).toEqual([]);
    expect(codesOf(waits(4, 0).slice(0, 10))).toEqual([]);
  });

  describe("of the gradient's clip", () => {
    const clipped = (norm: number, ratio: number, steps = 10) =>
      rising.slice(0, steps).map((step) => ({
        ...step,
        training: { ...step.training, grad_norm: norm, grad_clip_ratio: ratio, max_grad_norm: 1 },
      }));

    it("says when it never acts and the norms are far below it, and when it always does", () => {
      const [idle, ...others] = adviceFor(clipped(0.002, 0));
      expect(others).toEqual([]);
      expect(idle).toMatchObject({
        code: "clip_idle",
        message: expect.stringMatching(/0\.0020 at most.*500 times.*maxGradNorm to about 0\.006,/),
      });
      const [always] = adviceFor(clipped(4, 1));
      expect(always).toMatchObject({
        code: "clip_always",
        message: expect.stringMatching(/norm is 4\.0, the limit 1\).*maxGradNorm to about 10,/),
      });
    });

    it("is silent about norms of the clip's size, before ten steps, and between two tens", () => {
      expect(codesOf(clipped(0.1, 0))).toEqual([]);
      expect(codesOf([...clipped(0.002, 0, 9), ...clipped(1.4, 0.5).slice(9)])).toEqual([]);
      expect(codesOf([...clipped(4, 1, 9), ...clipped(0.9, 0).slice(9)])).toEqual([]);
      expect(codesOf(clipped(0.002, 0, 9))).toEqual([]);
      expect(codesOf(clipped(0.002, 0, 14))).toEqual([]);
      expect(codesOf(clipped(0.002, 0, 20))).toEqual(["clip_idle"]);
    });

    it("counts steps that trained, of a server that tells the clip", () => {
      const untrained = { ...rising[0]!, trained: false, training: {} };
      expect(codesOf([untrained, ...clipped(0.002, 0)])).toEqual(["clip_idle"]);
      expect(codesOf([...clipped(0.002, 0), untrained])).toEqual([]);
      expect(codesOf(rising.slice(0, 10))).toEqual([]);
    });
  });

  it("sees one answer that stays and teaches nothing, not one that was always the last", () => {
    const always = Array.from({ length: 5 }, () => answering(63));
    expect(codesOf(always)).toEqual([]);
    const stuck = Array.from({ length: 3 }, () => answering(63, 0));
    expect(codesOf([...always, ...stuck.slice(1)])).not.toContain("one_answer");
    expect(codesOf([...always, ...stuck])).toEqual(["no_variance", "one_answer"]);
  });

  it("tells rollouts without a reward from rewards that do not differ", () => {
    const none = { ...good, reward: null, variance: { groups: 0, of: 8 } };
    const [warning] = adviceFor([none, none, none]);
    expect(warning?.code).toBe("no_rewards");
    expect(warning?.message).toMatch(/^None of the rollouts of the last 24 groups has a reward/);
    const down = { ...none, reasons: { judge_failed: 8 } };
    const [judge] = adviceFor([down]);
    expect(judge?.code).toBe("judge_fails");
    expect(judge?.message).toMatch(/^The judge failed at 8 of the last 8 groups/);
    const failing = { ...none, reward: { mean: 0, std: 0, low: 0, high: 0 } };
    expect(adviceFor([none, failing])[0]?.message).toContain("(mean reward 0.0)");
  });

  it("leaves the sampler's difference to the server, which knows the precision", () => {
    const training = { "sampling/sampling_logp_difference/mean": 0.05 };
    const other = [{ code: "server", message: "optimizerSteps is 3, but 1 group trains." }];
    expect(codesOf(after({ training, warnings: other }))).toEqual([]);
  });

  const heldOut = (step: number, score: number, label = "held-out"): EvaluationRecord => ({
    type: "evaluation",
    label,
    step,
    metric: "success",
    scenarios: 20,
    failed: 0,
    score: { mean: score, low: score - 0.1, high: score + 0.1 },
  });

  describe("of rewards that only compare the rollouts of a group", () => {
    const ranked = Array.from({ length: 24 }, (_, i) => ({
      ...good,
      step: i + 1,
      reward: { mean: 0.5 + 0.01 * (i % 2), std: 0.3, low: 0.4, high: 0.6 },
      metrics: { ruler_score: 0.5 },
    }));
    const saidIn = (history: StepRecord[], evaluations: EvaluationRecord[] = []) =>
      history.flatMap((_, i) => {
        const known = evaluations.filter(({ step }) => step <= i);
        return adviceFor(history.slice(0, i + 1), { evaluations: known }).map(({ code }) => code);
      });

    it("says that it cannot tell, once in a while, and never that nothing was learnt", () => {
      expect(saidIn(ranked)).toEqual(["cannot_tell", "cannot_tell"]);
    });

    it("looks at fixed evaluations where there are some", () => {
      expect(saidIn(ranked, [heldOut(0, 0.3), heldOut(8, 0.5)])).toEqual([]);
      expect(saidIn(ranked, [heldOut(0, 0.3), heldOut(8, 0.3)])).toContain("nothing_learnt");
      const [found] = adviceFor(ranked.slice(0, 12), {
        evaluations: [heldOut(0, 0.3), heldOut(10, 0.25)],
      });
      expect(found?.message).toMatch(/success of held-out: 0\.300 → 0\.250 after step 10/);
    });

    it("takes no evaluation that was scored by comparing, nor that of a model elsewhere", () => {
      const relative = [heldOut(0, 0.5), heldOut(8, 0.5)].map((one) => ({
        ...one,
        relative: true as const,
      }));
      const elsewhere = [heldOut(0, 0.5), heldOut(8, 0.5)].map((one) => ({
        ...one,
        comparison: true as const,
      }));
      for (const evaluations of [relative, elsewhere]) {
        expect(new Set(saidIn(ranked, evaluations))).toEqual(new Set(["cannot_tell"]));
      }
    });
  });

  /** The share of runs of `steps` that are said to have learnt nothing at any of their steps. */
  function flagged(rise: number, steps: number, planned: number | undefined): number {
    const runs = 400;
    const random = mulberry32(1);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    let found = 0;
    for (let run = 0; run < runs; run++) {
      const history = Array.from({ length: steps }, (_, i) => ({
        ...good,
        reward: { mean: (rise * i) / (steps - 1) + normal(), std: 1, low: 0, high: 1 },
      }));
      const said = history.some((_, i) =>
        adviceFor(history.slice(0, i + 1), { plannedSteps: planned }).some(
          ({ code }) => code === "nothing_learnt",
        ),
      );
      found += said ? 1 : 0;
    }
    return found / runs;
  }

  it("finds that nothing was learnt within a run of ten steps, and seldom where it was", () => {
    expect(flagged(0, 10, 10)).toBeGreaterThan(0.75);
    // Risen by so many times the noise of a step.
    expect(flagged(3, 10, 10)).toBeLessThan(0.08);
    expect(flagged(5, 10, 10)).toBeLessThan(0.01);
    expect(flagged(0, 12, undefined)).toBeGreaterThan(0.75);
    expect(flagged(4, 14, undefined)).toBeLessThan(0.05);
    // Too short to say.
    expect(flagged(0, 7, 7)).toBe(0);
    expect(flagged(0, 11, undefined)).toBe(0);
  });
});
