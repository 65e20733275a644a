import { createHash } from "node:crypto";
import { HoneError, mulberry32, shuffledIndices, type ChatMessage } from "@hone/core";
import { hashOf, stable } from "../self-judge/coin.ts";
import { swapped } from "./judge-verdict.ts";
import { requireGood } from "../data-rows.ts";
import { unusable, type JudgeRecord, type Preference } from "./record.ts";

export type JudgeMode = "pointwise" | "pairwise";

/** One answer and what it is worth, from 0 to 4. */
interface PointwiseCase {
  mode: "pointwise";
  place: string;
  input: readonly ChatMessage[];
  answer: string;
  label: number;
}

/** Two answers, which of them is better, and the orders in which a judge is shown them. */
export interface PairwiseCase {
  mode: "pairwise";
  place: string;
  input: readonly ChatMessage[];
  answers: readonly [string, string];
  preference: Preference;
  /** "given" shows the first answer as A. Held-out pairs are shown both ways. */
  orders: readonly ("given" | "swapped")[];
}

export type JudgeCase = PointwiseCase | PairwiseCase;

/** What the records say in the mode; a record that says nothing there is an error that names it. */
export function casesOf(records: readonly JudgeRecord[], mode: JudgeMode): JudgeCase[] {
  const cases: JudgeCase[] = [];
  const bad: HoneError[] = [];
  for (const record of records) {
    try {
      cases.push(...(mode === "pointwise" ? pointwise(record) : [pairwise(record)]));
    } catch (error) {
      if (!HoneError.isInstance(error)) throw error;
      bad.push(error);
    }
  }
  requireGood(bad);
  return cases;
}

/** OpenJudge trains on the first answer of a line; every labelled one is taken here. */
function pointwise({ place, input, answers }: JudgeRecord): PointwiseCase[] {
  const labelled = answers.flatMap(({ content, helpfulness }) =>
    helpfulness === null ? [] : [{ content, helpfulness }],
  );
  if (labelled.length === 0) {
    throw unusable(place, "no answer has label.helpfulness, which pointwise judges learn from");
  }
  return labelled.map(({ content, helpfulness }) => ({
    ...{ mode: "pointwise", place, input, answer: content, label: helpfulness },
  }));
}

function pairwise({ place, input, answers, preference }: JudgeRecord): PairwiseCase {
  const [first, second, third] = answers;
  if (!first || !second || third) {
    throw unusable(place, `pairwise judges compare two answers, and it has ${answers.length}`);
  }
  const known = preference ?? compared(first.helpfulness, second.helpfulness);
  if (known === null) {
    throw unusable(place, "its answers have neither label.preference nor label.helpfulness");
  }
  return {
    ...{ mode: "pairwise", place, input, preference: known, orders: ["given", "swapped"] },
    answers: [first.content, second.content],
  };
}

function compared(first: number | null, second: number | null): Preference | null {
  if (first === null || second === null) return null;
  return first === second ? "tie" : first > second ? "A" : "B";
}

export interface SplitCases {
  train: JudgeCase[];
  heldOut: JudgeCase[];
}

/** A share of the conversations is held out, with all answers to them: their wording must not be trained on. */
export function splitCases(cases: readonly JudgeCase[], share: number, seed: number): SplitCases {
  const keys = [...new Set(cases.map(keyOf))];
  const order = shuffledIndices(keys.length, mulberry32(seed));
  const out = new Set(order.slice(0, Math.round(keys.length * share)).map((at) => keys[at]));
  return {
    train: cases.filter((one) => !out.has(keyOf(one))),
    heldOut: cases.filter((one) => out.has(keyOf(one))),
  };
}

export function keyOf({ input }: JudgeCase): string {
  return stable(input);
}

/** Each pair to train on is shown one way round, by a coin of its own. */
export function dealtOrders(cases: readonly JudgeCase[], seed: number): JudgeCase[] {
  return cases.map((one) => {
    if (one.mode === "pointwise") return one;
    const coin = mulberry32(hashOf(`order ${seed} ${stable([one.input, one.answers])}`))();
    return { ...one, orders: [coin < 0.5 ? "given" : "swapped"] };
  });
}

/** The control: the labels change places among the cases, so that they say nothing about the answers. */
export function shuffledLabels(cases: readonly JudgeCase[], seed: number): JudgeCase[] {
  const order = shuffledIndices(cases.length, mulberry32(seed));
  return cases.map((one, at) => {
    const other = cases[order[at] as number] as JudgeCase;
    if (one.mode === "pointwise") {
      return { ...one, label: other.mode === "pointwise" ? other.label : one.label };
    }
    return { ...one, preference: other.mode === "pairwise" ? other.preference : one.preference };
  });
}

/** What is shown of a case: the label that is right for this order. */
export interface ShownCase {
  mode: JudgeMode;
  input: readonly ChatMessage[];
  /** One answer, or A and B. */
  answers: readonly string[];
}

export function shownCases(one: JudgeCase): { shown: ShownCase; order: "given" | "swapped" }[] {
  const { mode, input } = one;
  if (one.mode === "pointwise") {
    return [{ shown: { mode, input, answers: [one.answer] }, order: "given" }];
  }
  return one.orders.map((order) => {
    const answers = order === "given" ? one.answers : one.answers.toReversed();
    return { shown: { mode, input, answers }, order };
  });
}

export function preferenceIn(one: PairwiseCase, order: "given" | "swapped"): Preference {
  return order === "given" ? one.preference : swapped(one.preference);
}

export function digestOf(value: unknown): string {
  return createHash("sha256").update(stable(value)).digest("hex").slice(0, 16);
}
