import { expect, it } from "vitest";
import {
  dealtOrders,
  shownCases,
  shuffledLabels,
  splitCases,
  type JudgeCase,
  type PairwiseCase,
} from "./judge-case.ts";
import { gradedCase } from "./judge-task.ts";
import { pairsOf } from "./pairs.ts";
import { preparedCases } from "./prepared-cases.ts";

const pairs: PairwiseCase[] = Array.from({ length: 200 }, (_, at) => ({
  ...{ mode: "pairwise", place: `data[${at}]`, orders: ["given", "swapped"] },
  input: [{ role: "user", content: `question ${at}` }],
  answers: [`a${at}`, `b${at}`],
  preference: (["A", "B", "tie"] as const)[at % 3]!,
}));
const marks: JudgeCase[] = Array.from({ length: 60 }, (_, at) => ({
  ...{ mode: "pointwise", place: `data[${at}]`, label: at % 5, answer: `answer ${at}` },
  input: [{ role: "user", content: `question ${Math.floor(at / 3)}` }],
}));

it("holds out whole conversations, the same ones by the same seed", () => {
  const { train, heldOut } = splitCases(marks, 0.25, 1);
  expect([train.length, heldOut.length]).toEqual([45, 15]);
  const inputs = (cases: readonly JudgeCase[]) =>
    new Set(cases.map(({ input }) => JSON.stringify(input)));
  expect([...inputs(heldOut)].filter((one) => inputs(train).has(one))).toEqual([]);
  expect(splitCases(marks, 0.25, 1)).toEqual({ train, heldOut });
  expect(splitCases(marks, 0.25, 2).heldOut).not.toEqual(heldOut);
});

it("shows each pair to train on one way round, about half of them swapped", () => {
  const dealt = dealtOrders(pairs, 3);
  const swapped = dealt.filter((one) => one.mode === "pairwise" && one.orders[0] === "swapped");
  expect(dealt.every((one) => one.mode === "pairwise" && one.orders.length === 1)).toBe(true);
  expect(swapped.length).toBeGreaterThan(75);
  expect(swapped.length).toBeLessThan(125);
  expect(dealtOrders(pairs, 3)).toEqual(dealt);
  expect(shownCases(swapped[0]!)[0]!.shown.answers).toEqual(
    (swapped[0] as PairwiseCase).answers.toReversed(),
  );
});

it("the control keeps the labels and takes them from their answers", () => {
  const shuffled = shuffledLabels(marks, 1);
  const labels = (cases: readonly JudgeCase[]) =>
    cases.map((one) => (one.mode === "pointwise" ? one.label : -1));
  expect(labels(shuffled).toSorted((a, b) => a - b)).toEqual(
    labels(marks).toSorted((a, b) => a - b),
  );
  expect(labels(shuffled)).not.toEqual(labels(marks));
});

it("a judge that always likes the first answer is right in one order only, and has all the bias", () => {
  const one = pairs[0]!;
  const { reward, metrics } = gradedCase(one, [
    { order: "given", said: "A" },
    { order: "swapped", said: "A" },
  ]);
  expect(reward).toBe(0.5);
  expect(metrics).toEqual({
    ...{ "judge/parse_rate": 1, "judge/accuracy": 0.5, "judge/position_bias": 1 },
    ...{ "judge/accuracy_given": 1, "judge/accuracy_swapped": 0 },
  });
  const right = gradedCase(one, [
    { order: "given", said: "A" },
    { order: "swapped", said: "B" },
  ]);
  expect(right.metrics).toMatchObject({ "judge/accuracy": 1, "judge/position_bias": 0 });
});

it("a judgement that cannot be read is wrong, and has no distance and no side", () => {
  const mark = gradedCase(marks[0]!, [{ order: "given", said: null }]);
  expect(mark).toEqual({ reward: 0, metrics: { "judge/parse_rate": 0, "judge/accuracy": 0 } });
  const { metrics } = gradedCase(pairs[2]!, [
    { order: "given", said: null },
    { order: "swapped", said: "tie" },
  ]);
  expect(metrics).toMatchObject({ "judge/parse_rate": 0.5, "judge/accuracy": 0.5 });
});

it("makes pairs of preferences and of different marks of one conversation, and no ties", () => {
  expect(pairsOf(pairs.slice(0, 3))).toEqual({
    pairs: [
      { input: pairs[0]!.input, better: "a0", worse: "b0" },
      { input: pairs[1]!.input, better: "b1", worse: "a1" },
    ],
    ties: 1,
  });
  const { pairs: made, ties } = pairsOf(marks.slice(0, 4));
  // 0, 1 and 2 of one conversation; the fourth is alone in its own.
  expect(made.map(({ better, worse }) => [better, worse])).toEqual([
    ["answer 1", "answer 0"],
    ["answer 2", "answer 0"],
    ["answer 2", "answer 1"],
  ]);
  expect(ties).toBe(0);
});

it("refuses to measure a judge by a conversation that it was trained on", async () => {
  const line = (helpfulness: number) => ({
    input: [{ role: "user", content: "Why?" }],
    output: [{ answer: { content: `${helpfulness}`, label: { helpfulness } } }],
  });
  const given = { mode: "pointwise", data: [line(1)], heldOut: [line(2)] } as const;
  await expect(preparedCases(given)).rejects.toThrow(/heldOut\[0\]|data\[0\] is held out/);
});
