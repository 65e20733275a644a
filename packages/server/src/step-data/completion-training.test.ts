import { type CompletionTraining, trainConfigSchema } from "@hone/core";
import { expect, test } from "vitest";
import { namedCompletions } from "../operations/kinds/train-claims.ts";
import { completionOf } from "../testing/fixtures.ts";
import { type FilterGroup, selectForTraining } from "./filter.ts";
import { decodeSafetensors } from "./safetensors.ts";
import { encodeStepData, planSelection, trainerConfig } from "./step-data.ts";

const config = trainConfigSchema.parse({});
const options = { ...config, step: 5, maxSequenceTokens: 99 };

/** Two turns; what is said of them is by their numbers. */
function member(name: string, reward: number, given: Record<number, CompletionTraining> = {}) {
  const first = completionOf(name, { id: `${name}0`, policy: "m@5" });
  const second = completionOf(name, { id: `${name}1`, policy: "m@5", parentId: first.id });
  const training = new Map(Object.entries(given).map(([turn, of]) => [`${name}${turn}`, of]));
  return { rolloutId: name, reward, completions: [first, second], training };
}

const select = (...members: FilterGroup["members"]) =>
  selectForTraining([{ id: "g", failed: null, members }], options);

test("an excluded completion is context of those that train, and a rollout of such alone is left out", () => {
  const some = select(member("a", 1, { 0: { trainable: false } }), member("b", 0));
  expect(some.completions.map(({ id, trainable }) => [id, trainable])).toEqual([
    ["a0", false],
    ["a1", true],
    ["b0", true],
    ["b1", true],
  ]);
  expect(some.groups[0]).toMatchObject({ trainedRollouts: 2, masked: { excluded: 1 } });
  expect(some.completions[0]).not.toHaveProperty("weight");

  const all = select(
    member("a", 1, { 0: { trainable: false }, 1: { trainable: false } }),
    member("b", 0),
  );
  expect(all.groups[0]).toMatchObject({ trainedRollouts: 1, dropped: { excluded: 1 } });
  expect(all.rollouts).toHaveLength(2);
});

test.each([
  [{ reward: 0.5 }, null],
  [{ advantage: -1 }, null],
  [{ reward: 1 }, "zero_variance"],
  [{ advantage: 0 }, "zero_variance"],
  [{ weight: 2 }, "zero_variance"],
])("a group of equal rewards in which a completion has %o", (given, reason) => {
  const { groups } = select(member("a", 1, { 1: given }), member("b", 1));
  expect(groups[0]?.reason).toBe(reason);
});

test("the worker gets what was given, and no tensor for what nobody gave", () => {
  const members = [
    member("a", 1, { 0: { weight: 2 }, 1: { reward: 3 } }),
    member("b", 0, { 1: { advantage: -0.5 } }),
  ];
  const encoded = (from: FilterGroup["members"]) => {
    const selection = select(...from);
    const ledger = new Map(from.flatMap((of) => of.completions).map((of) => [of.id, of]));
    const plan = planSelection(selection, ledger, config);
    const ids = { operation_id: "op", model: "m", step: 6, lora: { r: 4, alpha: 8 } };
    const trainer = trainerConfig({ ...ids, max_mismatch: 1, seed: 0 }, config);
    const { rollouts, completions } = selection;
    const stepPlan = { rollouts, completions, plan, config: trainer };
    return decodeSafetensors(encodeStepData(stepPlan, ledger, { staging: "s", checkpoint: "c" }))
      .tensors;
  };
  const { completion_weight, completion_reward, completion_advantage } = encoded(members);
  expect([...(completion_weight?.data ?? [])]).toEqual([2, 1, 1, 1]);
  expect([...(completion_reward?.data ?? [])]).toEqual([NaN, 3, NaN, NaN]);
  expect([...(completion_advantage?.data ?? [])]).toEqual([NaN, NaN, NaN, -0.5]);
  const plain = encoded([member("a", 1), member("b", 0)]);
  for (const key of ["weight", "reward", "advantage"])
    expect(plain).not.toHaveProperty(`completion_${key}`);
});

test("a completion has its own id and that of its response, and a response all its choices", () => {
  const made = ["cmpl_1", "cmpl_2_0", "cmpl_2_1", "cmpl_20"].map((id) => ({ id }));
  const named = (key: string) => [...namedCompletions(made, { [key]: { weight: 2 } }).keys()];
  expect(named("cmpl_1")).toEqual(["cmpl_1"]);
  expect(named("chatcmpl_2")).toEqual(["cmpl_2_0", "cmpl_2_1"]);
  expect(named("cmpl_2_1")).toEqual(["cmpl_2_1"]);
  expect(named("chatcmpl_20")).toEqual(["cmpl_20"]);
  expect(named("cmpl_3")).toEqual([]);
});

test("every dialect's response id names the completion", () => {
  const own = "0123456789abcdef01234567";
  const made = [`cmpl_${own}`, `cmpl_${own.replace("0", "f")}`].map((id) => ({ id }));
  for (const key of ["cmpl_", "chatcmpl_", "msg_", "resp_"].map((prefix) => prefix + own)) {
    for (const id of key.startsWith("resp") ? [key, `${key}_i`, `${key}_u`, `${key}_iu`] : [key])
      expect([...namedCompletions(made, { [id]: { weight: 2 } }).keys()]).toEqual([`cmpl_${own}`]);
  }
});
