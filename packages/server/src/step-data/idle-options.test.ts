/** What `idleOptions` says of a step is held against the gradients of the worker's own losses. */
import { execFileSync } from "node:child_process";
import {
  type CompletionTraining,
  objectiveSchema,
  type ResolvedTrainConfig,
  type TrainConfig,
  trainConfigSchema,
} from "@hone/core";
import { describe, expect, it, test } from "vitest";
import { z } from "zod";
import { workerDir } from "../setup/paths.ts";
import { workerPython } from "../testing/running-engine.ts";
import { idleOptions, idleWarning } from "./idle-options.ts";

const step = { optimizerSteps: 1, ownAdvantages: false };
const parse = (config: TrainConfig) => trainConfigSchema.parse(config);

test("only options with another value than their default are told, and only of one optimizer step", () => {
  const given = { type: "dapo", epsilonLow: 0.2, epsilonHigh: 0.28, delta: 3 } as const;
  expect(idleOptions(parse(given), step)).toEqual(["epsilonHigh", "delta"]);
  expect(idleOptions(parse(given), { ...step, optimizerSteps: 2 })).toEqual([]);
  expect(idleOptions(parse({ type: "dapo" }), step)).toEqual([]);
  expect(idleOptions(parse({ type: "custom", name: "mine" }), step)).toEqual([]);
});

test("a step says what they are and what to do; completions with advantages of their own count", () => {
  const config = parse({ type: "grpo", delta: 2, importanceLevel: "sequence" });
  const op = (completions: CompletionTraining) => ({
    config,
    groups: [
      { id: "g", rollouts: [{ rolloutId: "r", reward: 1, completions: { c: completions } }] },
    ],
  });
  const told = /change nothing: delta, importanceLevel\. Leave them out, or set optimizerSteps/;
  expect(idleWarning(op({ weight: 2 }), 1)).toMatch(told);
  expect(idleWarning(op({ reward: 2 }), 1)).toMatch(/change nothing: delta\./);
  expect(idleWarning(op({ advantage: -1 }), 1)).toMatch(/change nothing: delta\./);
  expect(idleWarning(op({ weight: 2 }), 2)).toBeNull();
});

test("old logprobs that a step with too few groups does not need are told; with a KL in the reward none are", () => {
  const given = { optimizerSteps: 4, oldLogprobs: "trainer", epsilonHigh: 0.3 } as const;
  expect(idleOptions(parse(given), step)).toEqual(["epsilonHigh", "oldLogprobs"]);
  expect(idleOptions(parse({ ...given, beta: 0.1, klIn: "reward" }), step)).toEqual([]);
  expect(idleOptions(parse({ type: "rloo", epsilonHigh: 0.3, beta: 0.1 }), step)).toEqual([]);
});

/** Reads [without, with, whether completions have advantages of their own, steps] and tells whether gradients are the same. */
const script = `
import json, sys, torch
from pydantic import TypeAdapter
from hone_worker.train.objectives import OBJECTIVES, LossOptions
from hone_worker.train.objectives.objective import LossInputs
options = TypeAdapter(LossOptions)
def gradient(given, own, steps):
    config = options.validate_json(json.dumps(given))
    objective = OBJECTIVES[config.type]
    r = torch.Generator().manual_seed(3)
    def uniform(*shape):
        return torch.rand(*shape, generator=r, dtype=torch.float64)
    rollouts, long = 60, 4
    n = rollouts * long
    rollout = torch.arange(rollouts).repeat_interleave(long)
    advantages = torch.randn(rollouts, generator=r, dtype=torch.float64)[rollout]
    now = (-3 + uniform(n)).requires_grad_()
    sampler = now.detach() + (uniform(n) + uniform(rollouts)[rollout] - 1) * torch.linspace(0.05, 1.5, rollouts)[rollout]
    reference, entropies, moved = -3 + uniform(n), uniform(n), uniform(n) + uniform(rollouts)[rollout] - 1
    high = uniform(n) < 0.5
    if own:
        advantages = advantages + torch.linspace(-1, 1, n, dtype=torch.float64)
    needs = objective.needs(config)
    masked = needs.top_entropy is not None
    inputs = LossInputs(
        logprobs=now, old=now.detach() - (moved if steps > 1 else 0), sampler=sampler, advantages=advantages,
        rollout=rollout, group=rollout // 4, completion=rollout, token=torch.arange(n), rollouts=float(rollouts),
        entropies=entropies, tokens=float(n), mean_tokens=float(n),
        rollout_tokens=torch.full((rollouts,), float(long), dtype=torch.float64),
        entropy_tokens=float(high.sum()) if masked else float(n), high_entropy=high if masked else None,
        reference=reference,
    )
    return torch.autograd.grad(objective.loss(inputs, config).total, now)[0]
def same(without, given, own, steps):
    one, other = gradient(without, own, steps), gradient(given, own, steps)
    return bool(torch.allclose(one, other, rtol=1e-9, atol=1e-14))
print(json.dumps([same(*case) for case in json.load(sys.stdin)]))
`;

/** Of every option of the ratio a value at which it acts. */
const values: Record<string, unknown[]> = {
  ...{ epsilonLow: [0.05], epsilonHigh: [0.07, 0.9, 1.2], delta: [1.1] },
  ...{ temperaturePositive: [1.7], temperatureNegative: [1.3] },
  ...{ kPositive: [2.5], lambdaPositive: [2.5], kNegative: [2.5], lambdaNegative: [1.5] },
  importanceLevel: ["token", "sequence"],
};
const beside: Record<string, unknown>[] = [
  {},
  ...["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"].map((mode) => ({
    samplerCorrection: mode,
  })),
  ...["token", "sequence"].map((mode) => ({ mismatchMask: mode })),
  ...[{ topEntropyQuantile: 0.5 }, { offPolicyMaskThreshold: 0.1 }, { rewardCoef: 0.7 }],
  ...[{ beta: 0.3 }, { beta: 0.3, klBiasCorrection: true }],
  { samplerCorrection: "none", importanceLevel: "sequence", klEstimator: "k2", beta: 0.3 },
];

const types = objectiveSchema.options.map(({ shape: { type } }) =>
  type instanceof z.ZodDefault ? type.def.defaultValue : type.value,
);

interface Case {
  without: Record<string, unknown>;
  option: string;
  value: unknown;
  ownAdvantages: boolean;
  config: ResolvedTrainConfig;
}

/** Each option with each other, of every type that has both. */
function cases(): Case[] {
  const found: Case[] = [];
  for (const [type, others, option] of product(types, beside, Object.keys(values))) {
    // Its KL is in the reward: the ratio is then 1 but for rounding, of which nothing is told.
    if (type === "rloo" && "beta" in others) continue;
    const own = option === "importanceLevel" ? [false, true] : [false];
    for (const [value, ownAdvantages] of product(values[option] ?? [], own)) {
      const without = { type, ...others };
      const teacher = type === "distill" ? { teacher: "base" } : {};
      const plain = trainConfigSchema.safeParse({ ...without, ...teacher });
      const { data: config } = trainConfigSchema.safeParse({
        ...without,
        [option]: value,
        ...teacher,
      });
      if (!plain.success || !config || option in others) continue;
      if ((plain.data as Record<string, unknown>)[option] === value) continue;
      found.push({ without, option, value, ownAdvantages, config });
    }
  }
  return found;
}

function product<Lists extends readonly (readonly unknown[])[]>(...lists: Lists) {
  return lists.reduce<unknown[][]>(
    (all, list) => all.flatMap((some) => list.map((one) => [...some, one])),
    [[]],
  ) as { [I in keyof Lists]: Lists[I][number] }[];
}

describe.skipIf(!workerPython())("options beside the worker's losses", () => {
  it("are told exactly where the gradient is the same without them", () => {
    const all = product(cases(), [1, 2]);
    const same = JSON.parse(
      execFileSync(workerPython()!, ["-c", script], {
        env: { ...process.env, PYTHONPATH: workerDir },
        encoding: "utf8",
        input: JSON.stringify(
          all.map(([{ without, option, value, ownAdvantages }, optimizerSteps]) => [
            ...[without, { ...without, [option]: value }, ownAdvantages, optimizerSteps],
          ]),
        ),
        maxBuffer: 2 ** 26,
      }),
    ) as boolean[];
    expect(same).toHaveLength(all.length);
    const wrong = all.filter(
      ([{ option, ownAdvantages, config }, optimizerSteps], i) =>
        optimizerSteps === 1 &&
        idleOptions(config, { optimizerSteps, ownAdvantages }).includes(option) !== same[i],
    );
    expect(wrong.map(([{ without, option, value }]) => ({ ...without, [option]: value }))).toEqual(
      [],
    );
    // Each of them acts where the ratio is not 1, and is told of where it is.
    const named = (steps: number, idle: boolean) =>
      new Set(
        all.flatMap(([{ without, option }, optimizerSteps], i) =>
          optimizerSteps === steps && same[i] === idle
            ? [`${String(without["type"])} ${option}`]
            : [],
        ),
      );
    const possible = new Set(
      all.map(([{ without, option }]) => `${String(without["type"])} ${option}`),
    );
    expect(named(2, false)).toEqual(possible);
    expect(named(1, true)).toEqual(possible);
  });
});
