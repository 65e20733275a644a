import { spawnSync } from "node:child_process";
import { homedir } from "node:os";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { aggregate } from "./aggregate.ts";
import type { Aggregation, ScaleRewards } from "./aggregate.ts";
import { combineRewards } from "./combine-rewards.ts";
import type { CombinedRewards } from "./combine-rewards.ts";
import { evaluateExpression } from "./expression.ts";
import { parsePython } from "./python-syntax.ts";
import { isThinkFormat } from "./format-rewards.ts";
import { lengthPenalty } from "./text-rewards.ts";
import { group, trajectory } from "../testing/group.test-support.ts";

interface CombineCase {
  /** Each exactly a float32, which is what TRL takes. */
  values: (number | null)[][];
  weights: number[];
  groupSize: number;
  aggregation: Aggregation;
  scaleRewards: ScaleRewards;
}
interface Reference {
  combined: {
    advantages: number[];
    rewards: (number | null)[];
    metrics: Record<string, number | null>;
  }[];
  thinkFormat: number[];
  overlong: number[];
  expressions: (number | null)[];
  python: boolean[];
}

const reward = fc.oneof(
  { weight: 2, arbitrary: fc.constant(null) },
  { weight: 3, arbitrary: fc.float({ min: -2, max: 2, noNaN: true }) },
  { weight: 3, arbitrary: fc.constantFrom(0, 1) },
);
const combineCase: fc.Arbitrary<CombineCase> = fc
  .record({
    groups: fc.integer({ min: 1, max: 4 }),
    groupSize: fc.integer({ min: 1, max: 6 }),
    functions: fc.integer({ min: 1, max: 4 }),
    aggregation: fc.constantFrom<Aggregation>("sum_then_normalize", "normalize_then_sum"),
    scaleRewards: fc.constantFrom<ScaleRewards>("group", "batch", "none"),
  })
  .chain(({ groups, groupSize, functions, ...rest }) =>
    fc.record({
      values: fc.array(fc.array(reward, { minLength: functions, maxLength: functions }), {
        minLength: groups * groupSize,
        maxLength: groups * groupSize,
      }),
      weights: fc.array(fc.float({ min: -1, max: 2, noNaN: true }), {
        minLength: functions,
        maxLength: functions,
      }),
      groupSize: fc.constant(groupSize),
      aggregation: fc.constant(rest.aggregation),
      scaleRewards: fc.constant(rest.scaleRewards),
    }),
  );

const pieces = fc
  .array(
    fc.constantFrom("<think>", "</think>", "\n", "a", " ", "<answer>", "</answer>", "<", "think"),
    { maxLength: 9 },
  )
  .map((parts) => parts.join(""));
const text = fc.oneof(
  pieces,
  pieces.map((rest) => `<think>${rest}</think>${rest}`),
);

const arithmetic = fc
  .array(
    fc.constantFrom(
      ..."0123456789".split(""),
      "12",
      "3.5",
      ".5",
      "7.",
      "+",
      "-",
      "*",
      "/",
      "(",
      ")",
    ),
    { minLength: 1, maxLength: 9 },
  )
  .map((parts) => parts.join(""));
const wellFormed = fc.letrec<{ e: string }>((tie) => ({
  e: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.integer({ min: 0, max: 30 }).map(String),
    fc
      .tuple(tie("e"), fc.constantFrom("+", "-", "*", "/", "//", " ** ", " - "), tie("e"))
      .map((parts) => parts.join("")),
    tie("e").map((inner) => `(${inner})`),
    tie("e").map((inner) => `-${inner}`),
  ),
})).e;

const cases = fc.sample(combineCase, { numRuns: 400, seed: 7 });
const texts = fc.sample(text, { numRuns: 400, seed: 7 });
const lengths = Array.from({ length: 130 }, (_, n) => n);
// Large powers are where eval is the danger: the reference gets small ones only.
const expressions = [
  ...fc.sample(arithmetic, { numRuns: 1500, seed: 7 }),
  ...fc.sample(wellFormed, { numRuns: 1500, seed: 7 }),
].filter((source) => !source.includes("**"));
const powers = ["2 ** 3 ** 2", "-2 ** 2", "2 ** -1", "(-2) ** 3", "2**-2*4", "1 ** 999", "0 ** 0"];

const programs = [
  "import os.path as p, sys\n\n\ndef f(a, *b, c=1, **d) -> int:\n    return [x for x in b if x]\n",
  "class A(B, metaclass=C):\n    x: int = 5\n\n    @property\n    def y(self):\n        yield\n",
  "async def g():\n    async with a as (b, c), d:\n        await e\n    async for x in y:\n        pass\n",
  "match point:\n    case Point(x=0, y=int(z)) | [z, *_]:\n        pass\n    case {'a': 1, **rest} if rest:\n        pass\n    case _:\n        pass\n",
  "try:\n    x = f'{a!r:>{w}} {b:.2f}'\nexcept* (A, B) as e:\n    raise C from e\nfinally:\n    del x\n",
  "if (n := len(a)) > 10:\n    print(f\"{n}\", sep='')\nelif not b:\n    lambda x, /, y: (yield)\nelse:\n    a[1:2, ..., ::3] = 50000.\n",
  "def h(x):\n    global y\n    while True:\n        if x: break\n        else: continue\n    assert x, 'no'\n    return x if x else -x ** 2 // 3\n",
];
const edits = fc.record({
  program: fc.constantFrom(...programs),
  at: fc.nat(300),
  length: fc.nat(2),
  put: fc.constantFrom(
    "",
    "",
    "(",
    ")",
    "]",
    ":",
    ",",
    "=",
    '"',
    " ",
    "\n",
    "\n  ",
    " in ",
    " def ",
    "*",
  ),
});
const python = [
  ...programs,
  ...fc.sample(edits, { numRuns: 1200, seed: 7 }).map(({ program, at, length, put }) => {
    const from = at % program.length;
    return program.slice(0, from) + put + program.slice(from + length);
  }),
];

const withTrl = process.env["HONE_PYTHON"] !== undefined;

describe.skipIf(!withTrl)("TRL's own code", () => {
  let reference: Reference;
  beforeAll(() => {
    // Many cases have trajectories that no function applies to.
    vi.spyOn(console, "warn").mockReturnValue();
    const interpreter = (process.env["HONE_PYTHON"] ?? "").replace(/^~(?=\/)/, homedir());
    const { stdout, stderr, status } = spawnSync(
      interpreter,
      [fileURLToPath(new URL("trl_reference.py", import.meta.url))],
      {
        input: JSON.stringify({
          combine: cases,
          texts,
          overlong: { max: 100, soft: 20, lengths },
          expressions: [...expressions, ...powers],
          python,
        }),
        encoding: "utf8",
        maxBuffer: 1 << 28,
        env: { ...process.env, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" },
      },
    );
    if (status !== 0) throw new Error(stderr.slice(-2000));
    // What a library prints on import stands before it.
    reference = JSON.parse(stdout.slice(stdout.indexOf('{"combined"'))) as Reference;
  });

  afterAll(() => void vi.restoreAllMocks());

  it("gives the same advantages, to 1e-5, over random cases with nulls", () => {
    for (const [
      index,
      { values, weights, groupSize, aggregation, scaleRewards },
    ] of cases.entries()) {
      const groups = Array.from({ length: values.length / groupSize }, (_, at) =>
        values.slice(at * groupSize, (at + 1) * groupSize),
      );
      const { advantages } = aggregate(groups, weights, { aggregation, scaleRewards });
      const theirs = reference.combined[index]?.advantages ?? [];
      expect(advantages).toHaveLength(theirs.length);
      for (const [at, value] of theirs.entries()) {
        const ours = advantages[at] ?? Number.NaN;
        expect(Math.abs(ours - value), JSON.stringify(cases[index])).toBeLessThan(1e-5);
      }
    }
    expect(
      cases.filter(({ values }) => values.some((row) => row.every((v) => v === null))).length,
    ).toBeGreaterThan(50);
  });

  it("gives the same rewards and metrics", async () => {
    const compared = new Set<string>();
    for (const [index, one] of cases.entries()) {
      const { aggregation, scaleRewards } = one;
      const { groups, advantages, metrics } = await combined(one);
      const theirs = reference.combined[index]!;
      const ours = groups.flatMap(({ trajectories }) => trajectories.map((t) => t.reward));
      // normalize_then_sum: the reward is what TRL trains with.
      const sums = aggregation === "sum_then_normalize";
      for (const [at, value] of theirs.rewards.entries()) {
        close(ours[at], sums || value === null ? value : (theirs.advantages[at] ?? null));
        close(advantages.flat()[at], theirs.advantages[at] ?? null);
      }
      for (const [name, value] of Object.entries(theirs.metrics)) {
        // Over the batch TRL's tells whether all groups are alike at once, and its reward is of the z-scores.
        if (name === "frac_reward_zero_std" && !(sums && scaleRewards !== "batch")) continue;
        if (["reward", "reward_std"].includes(name) && !sums) continue;
        compared.add(`${aggregation} ${name}`);
        close(metrics[name], value);
      }
    }
    expect([...compared]).toEqual(
      expect.arrayContaining([
        "sum_then_normalize frac_reward_zero_std",
        "sum_then_normalize reward_std",
        "normalize_then_sum rewards/f0/std",
      ]),
    );
    const shares = reference.combined.map(({ metrics }) => metrics["frac_reward_zero_std"] ?? 0);
    expect(shares.filter((share) => share > 0 && share < 1).length).toBeGreaterThan(5);
  });

  it("takes the same texts for thinking in the right format", () => {
    expect(texts.map((source) => (isThinkFormat(source) ? 1 : 0))).toEqual(reference.thinkFormat);
    expect(new Set(reference.thinkFormat).size).toBe(2);
  });

  it("punishes length the same", () => {
    const punish = lengthPenalty({ maxTokens: 100, softTokens: 20 });
    const ours = lengths.map((completionTokens) => {
      const usage = { completions: 1, promptTokens: 1, completionTokens };
      return punish(trajectory("x", { usage }), { group: group([]), index: 0 });
    });
    for (const [at, value] of reference.overlong.entries()) {
      expect(ours[at]).toBeCloseTo(value, 10);
    }
  });

  it("evaluates what Python's eval does, and nothing that it does not", () => {
    let valid = 0;
    for (const [at, source] of [...expressions, ...powers].entries()) {
      const theirs = reference.expressions[at] ?? null;
      const ours = evaluateExpression(source);
      expect(ours === null, `${source} = ${theirs}`).toBe(theirs === null);
      if (!ours || theirs === null) continue;
      valid += 1;
      const value = Number(ours.value.top) / Number(ours.value.bottom);
      const size = Math.max(1, Math.abs(theirs));
      // Floor division of what floating point has rounded may fall to the other side.
      if (source.includes("//") && Math.abs(value - theirs) > 1e-6 * size) continue;
      expect(Math.abs(value - theirs) / size, source).toBeLessThan(1e-6);
    }
    expect(valid).toBeGreaterThan(800);
  });

  it("takes for Python what Python takes, but for a few in a hundred", () => {
    const differing = python.filter((code, at) => parsePython(code).ok !== reference.python[at]);
    const wronged = differing.filter((code) => reference.python[python.indexOf(code)]);
    expect(wronged.length / python.length).toBeLessThan(0.005);
    expect(differing.length / python.length).toBeLessThan(0.03);
    expect(reference.python.filter(Boolean).length / python.length).toBeGreaterThan(0.1);
    expect(reference.python.slice(0, programs.length)).toEqual(programs.map(() => true));
  });
});

/** What combineRewards makes of a case. */
async function combined(one: CombineCase): Promise<CombinedRewards> {
  const { values, weights, groupSize, aggregation, scaleRewards } = one;
  const rewards = combineRewards(
    weights.map((weight, at) => ({
      weight,
      name: `f${at}`,
      fn: ({ metadata }) => values[metadata["row"] as number]?.[at] ?? null,
    })),
    { aggregation, scaleRewards },
  );
  const groups = Array.from({ length: values.length / groupSize }, (_, at) =>
    group(
      Array.from({ length: groupSize }, (__, member) =>
        trajectory("x", { metadata: { row: at * groupSize + member } }),
      ),
    ),
  );
  return await rewards.score(groups);
}

function close(ours: number | null | undefined, theirs: number | null): void {
  if (theirs === null) expect(ours).toBeNull();
  else
    expect(Math.abs((ours ?? Number.NaN) - theirs)).toBeLessThan(
      1e-5 * Math.max(1, Math.abs(theirs)),
    );
}
