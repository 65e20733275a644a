// What "What Makes a Reward Model a Good Teacher?" (https://arxiv.org/abs/2503.15477v4) published, entered as data.
import { expect, it } from "vitest";
import { combinedScore } from "./examine.ts";
import { correlation, mean } from "./statistics.ts";
import { thresholds } from "./verdict.ts";

/** Table 1: Pythia-2.8B. Its gains are in a figure only. */
const table1 = [
  { model: "100% on-policy", variance: 0.63, on: 0.66, off: 0.63 },
  { model: "75% on-policy", variance: 0.616, on: 0.656, off: 0.732 },
  { model: "50% on-policy", variance: 0.555, on: 0.64, off: 0.758 },
  { model: "25% on-policy", variance: 0.438, on: 0.616, off: 0.754 },
  { model: "0% on-policy", variance: 0.314, on: 0.587, off: 0.762 },
  { model: "perfect, low variance", variance: 0.111, on: 1, off: 1 },
  { model: "ground truth", variance: 0.256, on: 1, off: 1 },
];

/** Tables 10 (first three policies) and 11: true gain, variance, accuracy on-policy; off-policy it is the same everywhere. */
const offPolicy = [0.802, 0.838, 0.86, 0.8];
const tables10and11 = [
  {
    gain: [0.176, 0.148, 0.173, 0.108],
    variance: [0.405, 0.528, 0.544, 0.549],
    on: [0.7, 0.7, 0.705, 0.639],
  },
  {
    gain: [0.28, 0.278, 0.32, 0.274],
    variance: [0.5, 0.562, 0.6, 0.644],
    on: [0.716, 0.737, 0.737, 0.676],
  },
  {
    gain: [0.105, 0.124, 0.097, 0.101],
    variance: [0.261, 0.323, 0.299, 0.336],
    on: [0.731, 0.758, 0.751, 0.647],
  },
  {
    gain: [0.14, 0.167, 0.131, 0.094],
    variance: [0.419, 0.518, 0.527, 0.54],
    on: [0.72, 0.735, 0.741, 0.643],
  },
  {
    gain: [0.248, 0.272, 0.248, 0.243],
    variance: [0.397, 0.453, 0.472, 0.552],
    on: [0.736, 0.763, 0.756, 0.674],
  },
  {
    gain: [0.096, 0.099, 0.091, 0.094],
    variance: [0.249, 0.301, 0.279, 0.32],
    on: [0.714, 0.743, 0.73, 0.651],
  },
];

/** "Reward Variance & Acc.": the mean of the variance and of the accuracy on- and off-policy. */
const published = ({ variance, on, off }: { variance: number; on: number; off: number }) =>
  combinedScore(variance, mean([on, off]));

it("Table 1 in the order of the combined score: what is perfect and flat stands behind what teaches", () => {
  const order = table1.toSorted((a, b) => published(b) - published(a)).map(({ model }) => model);
  expect(order).toEqual([
    "75% on-policy",
    "100% on-policy",
    "ground truth",
    "50% on-policy",
    "25% on-policy",
    "perfect, low variance",
    "0% on-policy",
  ]);
  // The text: proxies beat the ground truth in the first epochs, and the flat one falls behind less accurate ones.
  const place = (model: string) => order.indexOf(model);
  expect(place("75% on-policy")).toBeLessThan(place("ground truth"));
  expect(place("25% on-policy")).toBeLessThan(place("perfect, low variance"));
  // Accuracy alone would put it first.
  expect(table1.toSorted((a, b) => b.on - a.on)[0]?.model).toBe("perfect, low variance");
});

it("our thresholds fail the flat model of Table 1, and let every model that taught pass", () => {
  const { warn, fail } = thresholds.variance;
  const levels = table1.map(({ model, variance }) => [
    model,
    variance < fail ? "fail" : variance < warn ? "warn" : "good",
  ]);
  expect(levels.filter(([, level]) => level !== "good")).toEqual([
    ["perfect, low variance", "fail"],
    ["ground truth", "warn"],
  ]);
});

it("on public reward models (Tables 10 and 11) it says more than variance, and less than accuracy", () => {
  const over = (score: (of: { variance: number; on: number; off: number }) => number) =>
    mean(
      tables10and11.map(({ gain, variance, on }) => {
        const scores = gain.map((_, at) =>
          score({ variance: variance[at]!, on: on[at]!, off: offPolicy[at]! }),
        );
        return correlation(scores, gain) ?? NaN;
      }),
    );
  // docs/judges.md has these: Pearson's correlation with the true gain over four models, mean of six policies.
  expect(over(published)).toBeCloseTo(0.143, 3);
  expect(over(({ variance }) => variance)).toBeCloseTo(-0.127, 3);
  expect(over((of) => mean([of.on, of.off]))).toBeCloseTo(0.527, 3);
});
