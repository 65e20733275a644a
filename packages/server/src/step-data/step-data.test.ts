import { readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { trainConfigSchema } from "@hone/core";
import { completionOf } from "../testing/fixtures.ts";
import { encodeStepData, planSelection, trainerConfig } from "./step-data.ts";
import { type FilterGroup, selectForTraining } from "./filter.ts";
import { planMicroBatches } from "./plan.ts";
import { decodeSafetensors, encodeSafetensors } from "./safetensors.ts";

const base = join(import.meta.dirname, "../../../../models/hone-2048-1m/model.safetensors");

describe("safetensors", () => {
  test("what is written is read back, whatever the lengths", () => {
    fc.assert(
      fc.property(
        fc.uint8Array(),
        fc.int32Array(),
        fc.bigInt64Array(),
        fc.float32Array({ noNaN: true }),
        fc.float64Array({ noNaN: true }),
        fc.string(),
        (u8, i32, i64, f32, f64, text) => {
          const tensors = {
            u8: { type: "U8" as const, data: u8 },
            i32: { type: "I32" as const, data: i32 },
            i64: { type: "I64" as const, data: i64 },
            f32: { type: "F32" as const, data: f32 },
            f64: { type: "F64" as const, data: f64 },
          };
          const decoded = decodeSafetensors(encodeSafetensors(tensors, { text }));
          expect(decoded.metadata).toEqual({ text });
          expect(decoded.tensors).toEqual(tensors);
        },
      ),
    );
  });

  test("the header has the layout of a file that the safetensors library wrote", async () => {
    const theirs = await readFile(base);
    const length = Number(theirs.readBigUInt64LE());
    const header = JSON.parse(theirs.toString("utf8", 8, 8 + length)) as Record<string, object>;
    const ours = Buffer.from(
      encodeSafetensors({ a: { type: "F32", data: Float32Array.of(1) } }, {}),
    );
    const ourLength = Number(ours.readBigUInt64LE());
    const ourHeader = JSON.parse(ours.toString("utf8", 8, 8 + ourLength)) as { a: object };
    const entry = Object.entries(header).find(([name]) => name !== "__metadata__");
    expect(Object.keys(ourHeader.a).sort()).toEqual(Object.keys(entry?.[1] ?? {}).sort());
    expect((8 + ourLength) % 8).toBe(0);
  });
});

describe("plan", () => {
  // Two tokens only, so that paths begin alike; a piece is handed on as a ledger's parent is.
  const leaves = fc
    .array(
      fc.record({
        group: fc.nat(5),
        member: fc.nat(2),
        prompt: fc.nat(2),
        rest: fc.array(fc.array(fc.nat(1), { maxLength: 6 }), { maxLength: 3 }),
      }),
      { minLength: 1, maxLength: 40 },
    )
    .map((list) => {
      const prompts = [[0, 1, 0], [0, 1, 0], [1]].map((ids) => Int32Array.from(ids));
      return list.map(({ group, member, prompt, rest }, index) => ({
        index,
        rollout: 3 * group + member,
        group,
        path: [prompts[prompt] ?? new Int32Array(), ...rest.map((ids) => Int32Array.from(ids))],
      }));
    });
  type Leaves = { path: Int32Array[] }[];
  const ids = (leaf?: Leaves[number]) => leaf?.path.flatMap((piece) => [...piece]) ?? [];
  /** Tokens of the prefix trees of these leaves: the distinct prefixes that they have. */
  const packedSize = (all: Leaves, micro: number[]) =>
    new Set(
      micro.flatMap((i) =>
        ids(all[i]).map((_, n) =>
          ids(all[i])
            .slice(0, n + 1)
            .join(),
        ),
      ),
    ).size;

  test("every leaf stands in it once, a group in one optimizer step, and micro-batches hold what fits", () => {
    fc.assert(
      fc.property(
        leaves,
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 60 }),
        (all, k, max) => {
          const plan = planMicroBatches(all, { optimizerSteps: k, maxTokensPerMicroBatch: max });
          expect(plan.flat(2).sort((a, b) => a - b)).toEqual(all.map(({ index }) => index));
          expect(plan.length).toBe(Math.min(k, new Set(all.map(({ group }) => group)).size));
          const stepsOfGroup = new Map<number, Set<number>>();
          plan.forEach((step, s) => {
            expect(step.length).toBeGreaterThan(0);
            step.forEach((micro, m) => {
              expect(micro.length === 1 || packedSize(all, micro) <= max).toBe(true);
              // A micro-batch ends only where the next leaf would not fit, counted as it is packed.
              const next = step[m + 1]?.[0];
              if (next !== undefined)
                expect(packedSize(all, [...micro, next])).toBeGreaterThan(max);
              for (const i of micro) {
                const group = all[i]?.group ?? 0;
                stepsOfGroup.set(group, (stepsOfGroup.get(group) ?? new Set()).add(s));
              }
            });
          });
          for (const steps of stepsOfGroup.values()) expect(steps.size).toBe(1);
        },
      ),
    );
  });

  test("rollouts that an objective looks at as a whole are not parted", () => {
    fc.assert(
      fc.property(leaves, fc.integer({ min: 1, max: 60 }), (all, max) => {
        const options = {
          optimizerSteps: 2,
          maxTokensPerMicroBatch: max,
          whole: "rollout" as const,
        };
        const plan = planMicroBatches(all, options);
        expect(planMicroBatches([...all].reverse(), options)).toEqual(plan);
        const micros = plan.flat();
        expect(micros.flat().sort((a, b) => a - b)).toEqual(all.map(({ index }) => index));
        const owners = micros.map((micro) => new Set(micro.map((i) => all[i]!.rollout)));
        const rollouts = new Set(all.map(({ rollout }) => rollout));
        expect(owners.reduce((sum, { size }) => sum + size, 0)).toBe(rollouts.size);
        micros.forEach((micro, m) => {
          expect(owners[m]!.size === 1 || packedSize(all, micro) <= max).toBe(true);
        });
      }),
    );
  });

  test("it does not depend on the order in which leaves are given, nor on how their paths are cut", () => {
    fc.assert(
      fc.property(leaves, (all) => {
        const options = { optimizerSteps: 2, maxTokensPerMicroBatch: 30 };
        const plan = planMicroBatches(all, options);
        expect(planMicroBatches([...all].reverse(), options)).toEqual(plan);
        const joined = all.map((leaf) => ({ ...leaf, path: [Int32Array.from(ids(leaf))] }));
        expect(planMicroBatches(joined, options)).toEqual(plan);
      }),
    );
  });

  test("a group's shared prompt counts once", () => {
    const prompt = new Int32Array(100).fill(1);
    const all = Array.from({ length: 8 }, (_, index) => ({
      index,
      rollout: index,
      group: 0,
      // Each rollout has its own copy of the prompt, as the ledger has.
      path: [prompt.slice(), Int32Array.from([index, 1, 1])],
    }));
    const planned = (maxTokensPerMicroBatch: number) =>
      planMicroBatches(all, { optimizerSteps: 1, maxTokensPerMicroBatch })[0]?.length;
    expect([planned(100 + 8 * 3), planned(100 + 8 * 3 - 1), planned(102)]).toEqual([1, 2, 8]);
  });
});

const filterOptions = {
  step: 5,
  maxStaleness: 4,
  maxSequenceTokens: 100,
  allowConstrained: false,
  maskTruncatedCompletions: false,
};
const member = (reward: number | null, given: Parameters<typeof completionOf>[1] = {}) => {
  const rolloutId = `r${Math.random()}`;
  return {
    rolloutId,
    reward,
    completions: [completionOf(rolloutId, { policy: "m@5", ...given })],
  };
};
const group = (...members: FilterGroup["members"]): FilterGroup => ({
  id: "g",
  failed: null,
  members,
});
const run = (...groups: FilterGroup[]) => selectForTraining(groups, filterOptions);

describe("filters", () => {
  test.each([
    ["no_reward", group(member(null), member(null))],
    ["group_too_small", group(member(1), member(null))],
    ["group_too_small", group()],
    ["zero_variance", group(member(0.1), member(0.1), member(0.1))],
    ["judge_failed", { ...group(member(1), member(0)), failed: "judge_failed" as const }],
    ["zero_variance", { ...group(member(null), member(null)), failed: "zero_variance" as const }],
    [
      "too_long",
      group(
        member(1, { promptSuffix: new Int32Array(99) }),
        member(0, { promptSuffix: new Int32Array(99) }),
      ),
    ],
    ["stale", group(member(1, { policy: "m@0" }), member(0, { policy: "m@0" }))],
    ["constrained", group(member(1, { temperature: 0 }), member(0, { topP: 0.9 }))],
    ["constrained", group(member(1, { constrained: true }), member(0, { constrained: true }))],
    ["no_tokens", group(member(1, { delivered: false }), member(0, { sampled: new Int32Array() }))],
  ])("a group is left out as %s", (reason, given) => {
    const { groups, reasons, trainableRollouts, completions } = run(given);
    expect(groups[0]?.reason).toBe(reason);
    expect(reasons).toEqual({ [reason]: 1 });
    expect({ trainableRollouts, completions }).toEqual({ trainableRollouts: 0, completions: [] });
  });

  test("rewards decide before the masks: a masked rollout stays in the baseline and in R", () => {
    const { rollouts, groups } = run(
      group(member(1, { policy: "m@0" }), member(0), member(null)),
      group(member(3), member(3)),
    );
    expect(rollouts.map(({ reward, trainable, group: g }) => [reward, trainable, g])).toEqual([
      [1, false, 0],
      [0, true, 0],
      [3, false, 1],
      [3, false, 1],
    ]);
    expect(groups[0]).toMatchObject({
      reason: null,
      trainedRollouts: 1,
      dropped: { stale: 1, no_reward: 1 },
    });
  });

  test("staleness of exactly the limit trains", () => {
    expect(run(group(member(1, { policy: "m@1" }), member(0))).trainableRollouts).toBe(2);
  });

  test("of several choices those train that a later turn continues, a single one always", () => {
    const id = "r";
    const [a, b] = [0, 1].map((choice) =>
      completionOf(id, { id: `c${choice}`, choice, choices: 2, seq: choice, policy: "m@5" }),
    );
    const next = completionOf(id, { id: "next", parentId: "c1", seq: 2, policy: "m@5" });
    const { completions } = run(
      group({ rolloutId: id, reward: 1, completions: [a!, b!, next] }, member(0)),
    );
    expect(completions.filter(({ rollout }) => rollout === 0)).toEqual([
      { id: "c1", rollout: 0, trainable: true },
      { id: "next", rollout: 0, trainable: true },
    ]);
  });

  test("a constrained completion is context of a later one that trains", () => {
    const first = completionOf("r", { id: "a", temperature: 0, policy: "m@5" });
    const second = completionOf("r", { id: "b", parentId: "a", seq: 1, policy: "m@5" });
    const { completions, tokens } = run(
      group({ rolloutId: "r", reward: 1, completions: [first, second] }, member(0)),
    );
    expect(completions.slice(0, 2)).toEqual([
      { id: "a", rollout: 0, trainable: false },
      { id: "b", rollout: 0, trainable: true },
    ]);
    expect(tokens).toBe(4);
  });

  test("answers that were cut train, unless they are to be masked", () => {
    const cut = { finishReason: "length" as const };
    const masking = { ...filterOptions, maskTruncatedCompletions: true };
    const first = completionOf("r", { id: "a", policy: "m@5", ...cut });
    const second = completionOf("r", { id: "b", parentId: "a", seq: 1, policy: "m@5" });
    const mixed = group(
      { rolloutId: "r", reward: 1, completions: [first, second] },
      member(0, cut),
      member(2, { ...cut, policy: "m@0" }),
      member(0.5),
    );
    expect(run(mixed).groups[0]).toEqual({
      id: "g",
      reason: null,
      trainedRollouts: 3,
      dropped: { stale: 1 },
    });
    const { rollouts, completions, groups, tokens } = selectForTraining([mixed], masking);
    expect(groups[0]).toEqual({
      id: "g",
      reason: null,
      trainedRollouts: 2,
      dropped: { truncated: 2 },
      masked: { truncated: 1 },
    });
    // The rewards of all four are the baseline, and R.
    expect(rollouts.map(({ reward, trainable }) => [reward, trainable])).toEqual([
      [1, true],
      [0, false],
      [2, false],
      [0.5, true],
    ]);
    // What was cut is the context of what came after it.
    expect(completions.map(({ trainable }) => trainable)).toEqual([false, true, true]);
    expect(tokens).toBe(4);
    const all = selectForTraining([group(member(1, cut), member(0, cut))], masking);
    expect(all).toMatchObject({ reasons: { truncated: 1 }, trainableRollouts: 0, completions: [] });
  });

  test("equal rewards at temperature 0 are explained", () => {
    const { warnings } = run(group(member(1, { temperature: 0 }), member(1, { temperature: 0 })));
    expect(warnings.join()).toContain("temperature 0");
  });

  test("R never depends on masks, and no reward is made up", () => {
    const reward = fc.option(fc.constantFrom(0, 0.5, 1));
    const policy = fc.constantFrom("m@0", "m@5");
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.tuple(reward, policy, fc.constantFrom(0, 1)), { maxLength: 5 }), {
          minLength: 1,
        }),
        (spec) => {
          const groups = spec.map((members, i) => ({
            ...group(...members.map(([r, p, t]) => member(r, { policy: p, temperature: t }))),
            id: `g${i}`,
          }));
          const { rollouts, groups: outcomes } = run(...groups);
          const rewarded = groups.flatMap((g) => g.members.filter((m) => m.reward !== null));
          expect(rollouts.map(({ id, reward: r }) => [id, r])).toEqual(
            rewarded.map((m) => [m.rolloutId, m.reward]),
          );
          for (const [i, outcome] of outcomes.entries()) {
            const trained = rollouts.filter((r) => r.group === i && r.trainable).length;
            expect(outcome.trainedRollouts).toBe(trained);
            expect(outcome.reason === null).toBe(trained > 0);
          }
        },
      ),
    );
  });
});

test("the batch holds each suffix once, with parents before children", () => {
  const first = completionOf("r", { id: "a", policy: "m@5" });
  const second = completionOf("r", {
    id: "b",
    parentId: "a",
    seq: 1,
    policy: "m@5",
    promptSuffix: Int32Array.of(9),
    sampled: Int32Array.of(10),
    logprobs: Float32Array.of(-1),
    finishReason: "length",
    constrained: true,
  });
  const other = member(0);
  const ledger = new Map([first, second, ...other.completions].map((c) => [c.id, c]));
  const selection = selectForTraining(
    [group({ rolloutId: "r", reward: 1, completions: [first, second] }, other)],
    { ...filterOptions, allowConstrained: true },
  );
  const config = trainConfigSchema.parse({});
  const stepPlan = {
    ...selection,
    plan: planSelection(selection, ledger, config),
    config: trainerConfig(
      {
        operation_id: "op",
        model: "m",
        step: 6,
        lora: { r: 1, alpha: 2 },
        max_mismatch: 0.1,
        seed: 7,
      },
      config,
    ),
  };
  const { tensors, metadata } = decodeSafetensors(
    encodeStepData(stepPlan, ledger, { staging: "/s", checkpoint: "/c" }),
  );
  const plain = (name: string) => Array.from(tensors[name]?.data ?? [], Number);
  expect(plain("tokens")).toEqual([1, 2, 3, 4, 5, 9, 10, 1, 2, 3, 4, 5]);
  expect(plain("sampled")).toEqual([0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1]);
  expect(plain("logprobs")).toEqual([0, 0, 0, -0.5, -0.25, 0, -1, 0, 0, 0, -0.5, -0.25]);
  expect(plain("completion_offsets")).toEqual([0, 5, 7, 12]);
  expect(plain("completion_parent")).toEqual([-1, 0, -1]);
  expect(plain("completion_rollout")).toEqual([0, 0, 1]);
  expect(plain("completion_policy")).toEqual([5, 5, 5]);
  expect(plain("completion_cut")).toEqual([0, 1, 0]);
  expect(plain("completion_truncated")).toEqual([0, 1, 0]);
  expect(plain("rollout_reward")).toEqual([1, 0]);
  expect(JSON.parse(metadata["config"] ?? "")).toMatchObject({
    plan: [[[2, 1]]],
    packing: "tree",
    staging: "/s",
    checkpoint: "/c",
    step: 6,
    optimizer: { learningRate: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-16 },
    loss: { type: "policy_gradient", epsilonLow: 0.2, scaleRewards: "none" },
  });
});
