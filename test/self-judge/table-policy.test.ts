// A policy that is a table learns from its own judgements by selfJudge's rules: no transformer, but real rewards, and
// a policy gradient that one can check by hand. Answers are learnt scenario by scenario; how it judges is shared.
import { mulberry32, type Trajectory, type TrajectoryGroup } from "@hone/core";
import { shuffleRewards } from "@hone/client";
import { groupOf } from "../../packages/recipes/src/doctor/outputs.test-support.ts";
import { coinOf, selfJudge } from "@hone/recipes";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { policyThat } from "./policy-that.ts";

const options = 3;
const samples = 6;
const fraction = 0.2;
const names = Array.from({ length: 20 }, (_, n) => `g${n}`);
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const scenarioOf = (name: string) => groupOf(name, []).scenario;

/** The first seed that gives exactly a fifth of the scenarios gold. */
const coins = (() => {
  for (let seed = 0; ; seed += 1) {
    const golden = names.filter((name) => coinOf(seed, scenarioOf(name)) < fraction);
    if (golden.length === fraction * names.length) return seed;
  }
})();
const hasGold = (name: string) => coinOf(coins, scenarioOf(name)) < fraction;

/** Logits of each scenario's answers, of which one is right, and of yes to a right and to a wrong answer. */
class Table {
  readonly answers = new Map(names.map((name) => [name, Array.from({ length: options }, () => 0)]));
  /** Judging: yes to a wrong answer, and what is added for a right one. */
  yes = { wrong: Math.log(0.25 / 0.75), more: 0 };
  readonly random: () => number;

  constructor(seed: number, knows: number) {
    this.random = mulberry32(seed);
    this.yes.more = knows;
  }

  static right(name: string): number {
    return Number(name.slice(1)) % options;
  }

  shares(name: string): number[] {
    const raised = this.answers.get(name)!.map(Math.exp);
    const sum = raised.reduce((total, one) => total + one, 0);
    return raised.map((one) => one / sum);
  }

  saysYes(right: boolean): number {
    return sigmoid(this.yes.wrong + (right ? this.yes.more : 0));
  }

  /** Share of right answers over those scenarios. */
  score(of: readonly string[]): number {
    return of.reduce((sum, name) => sum + this.shares(name)[Table.right(name)]!, 0) / of.length;
  }

  answer(name: string): number {
    let left = this.random();
    const at = this.shares(name).findIndex((share) => (left -= share) < 0);
    return at < 0 ? options - 1 : at;
  }
}

const answerOf = (one: Trajectory) =>
  /^(?:j\d+ )?(.*)$/.exec(one.messages.at(-1)!.content as string)![1]!;
const outputOf = (one: Trajectory) => Number(answerOf(one).split("output ")[1]);

/** Trains a table for so many steps; says what it has come to over the scenarios without gold, and how it judges. */
async function learn(
  arm: "gold" | "self" | "fifth" | "shuffled" | "always",
  seed: number,
  { knows = 1.7, steps = 24 } = {},
) {
  const table = new Table(seed, knows);
  const judged = new Map<string, { right: boolean; yes: boolean }[]>();
  const { how, also } = await policyThat((name, _, order) => {
    const said = order.map((output) => {
      const right = output === Table.right(name);
      return { right, yes: table.random() < table.saysYes(right) };
    });
    const key = `j${judged.size}`;
    judged.set(key, said);
    return `${key} [${said.map(({ yes }) => (yes ? 1 : 0)).join(", ")}]`;
  });
  const self = selfJudge({
    ...{ goldFraction: fraction, seed: coins, judgementsWithoutGold: 4, trustWindow: 12 },
    ...(arm === "always" && { trustAbove: null }),
  });
  const rate = 1;
  for (let step = 0; step < steps; step += 1) {
    const from = (step * 10) % names.length;
    const played = names.slice(from, from + 10).map((name): TrajectoryGroup => {
      const outputs = Array.from({ length: samples }, () => table.answer(name));
      const group = groupOf(
        name,
        outputs.map((output) => (output === Table.right(name) ? 1 : 0)),
      );
      const trajectories = group.trajectories.map((one, at) => ({
        ...one,
        messages: [
          ...one.messages.slice(0, -1),
          { role: "assistant" as const, content: `${name}, output ${outputs[at]}` },
        ],
      }));
      return { ...group, trajectories };
    });
    also.length = 0;
    const scored =
      arm === "gold"
        ? played
        : arm === "fifth"
          ? played.filter(({ id }) => hasGold(id))
          : await self(played, how);
    const trained = [...scored, ...also];
    const controlled = arm === "shuffled" ? shuffleRewards(trained, 1000 * seed + step) : trained;
    for (const group of controlled) {
      if (group.metadata["failed"] !== undefined) continue;
      const rewards = group.trajectories.flatMap(({ reward }) => reward ?? []);
      const mean = rewards.reduce((sum, one) => sum + one, 0) / rewards.length;
      for (const one of group.trajectories) {
        if (one.reward === null) continue;
        const push = (rate * (one.reward - mean)) / group.trajectories.length;
        const judgement = judged.get((one.messages.at(-1)!.content as string).split(" ")[0]!);
        if (judgement) {
          for (const { right, yes } of judgement) {
            const slope = (yes ? 1 : 0) - table.saysYes(right);
            table.yes.wrong += push * slope;
            if (right) table.yes.more += push * slope;
          }
        } else {
          const shares = table.shares(group.id);
          const logits = table.answers.get(group.id)!;
          for (const [at, share] of shares.entries()) {
            logits[at]! += 4 * push * ((at === outputOf(one) ? 1 : 0) - share);
          }
        }
      }
    }
  }
  return {
    without: table.score(names.filter((name) => !hasGold(name))),
    withGold: table.score(names.filter(hasGold)),
    judge: table.saysYes(true) - table.saysYes(false),
  };
}

beforeEach(() => {
  vi.spyOn(console, "warn").mockReturnValue();
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Of three answers one is right. */
const chance = 1 / options;

it("learns what gold for a fifth does not teach, and comes close to gold for all", async () => {
  const gold = await learn("gold", 1);
  const fifth = await learn("fifth", 1);
  const self = await learn("self", 1);
  // No scenario says anything of another one in a table.
  expect(fifth.without).toBeCloseTo(chance, 12);
  expect(fifth.withGold).toBeGreaterThan(0.9);
  expect(gold.without).toBeGreaterThan(0.95);
  expect(self.without).toBeGreaterThan(0.9);
  expect(gold.without - self.without).toBeLessThan(0.05);
  expect(self.judge).toBeGreaterThan(fifth.judge + 0.1);
});

it("learns nothing from rewards that were shuffled, the judgements' too", async () => {
  const { without, judge } = await learn("shuffled", 1);
  expect(Math.abs(without - chance)).toBeLessThan(0.15);
  expect(judge).toBeLessThan(0.5);
});

it("a judge that is against gold teaches nothing until it has learnt better, unless it is trusted always", async () => {
  const early = { knows: -4, steps: 8 };
  const guarded = await learn("self", 1, early);
  const trusted = await learn("always", 1, early);
  expect(guarded.without).toBeCloseTo(chance, 12);
  expect(trusted.without).toBeLessThan(chance - 0.05);
});
