import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { group, trajectory } from "../testing/group.test-support.ts";
import { arithmetic } from "./arithmetic-reward.ts";
import { combineRewards } from "./combine-rewards.ts";
import { taggedAnswer, taggedAnswerOnOneLine } from "./completion-text.ts";
import { evaluateExpression } from "./expression.ts";
import { thinkAnswerFormat, thinkFormat } from "./format-rewards.ts";
import type { RewardFunction } from "./reward-function.ts";
import { exactMatch, numericMatch } from "./text-rewards.ts";

const give = (fn: RewardFunction, text: string, rest = {}) =>
  fn(trajectory(text, rest), { group: { ...group([]), scenario: { target: 24 } }, index: 0 });

describe("combineRewards", () => {
  const warn = vi.spyOn(console, "warn");
  beforeAll(() => void warn.mockReturnValue());
  afterAll(() => warn.mockRestore());
  const say =
    (value: number | null): RewardFunction =>
    () =>
      value;

  it("sums by weight what applies, and gives null where nothing does", async () => {
    const rewards = combineRewards([
      { name: "maths", fn: ({ metadata }) => (metadata["kind"] === "maths" ? 1 : null), weight: 2 },
      {
        name: "code",
        fn: async ({ metadata }) => Promise.resolve(metadata["kind"] === "code" ? 0.5 : null),
      },
      { name: "tidy", fn: ({ metadata }) => (metadata["kind"] === "other" ? null : 0.1) },
    ]);
    const kinds = ["maths", "code", "other"];
    const old = group(kinds.map((kind) => trajectory("x", { metadata: { kind }, reward: 9 })));
    const before = structuredClone(old);
    const { groups, metrics } = await rewards.score([old]);
    expect(old).toEqual(before);
    expect(groups[0]?.trajectories.map(({ reward }) => reward)).toEqual([2.1, 0.6, null]);
    expect(groups[0]?.trajectories.map((t) => t.metrics)).toEqual([
      { "rewards/maths": 1, "rewards/tidy": 0.1 },
      { "rewards/code": 0.5, "rewards/tidy": 0.1 },
      {},
    ]);
    expect(groups[0]).toMatchObject({ metadata: old.metadata, exceptions: old.exceptions });
    expect(metrics).toMatchObject({
      "rewards/maths/mean": 1,
      "rewards/maths/std": null,
      "rewards/tidy/mean": 0.1,
      "rewards/tidy/std": 0,
      frac_reward_zero_std: 0,
    });
    expect(metrics["reward"]).toBeCloseTo(1.35, 10);
  });

  it("leaves what has no reward out of the baseline, and it moves nothing", async () => {
    const values = [1, 0, null, null];
    const rewards = combineRewards([
      { name: "f", fn: (_trajectory, { index }) => values[index] ?? null },
    ]);
    const { advantages } = await rewards.score([group(values.map(() => trajectory("x")))]);
    const size = 0.5 / (Math.SQRT1_2 + 1e-4);
    expect(advantages).toEqual([[size, -size, 0, 0]]);
  });

  it("takes a judge's mark off a group that has rewards now", async () => {
    const marked = (failed: string, values: (number | null)[]) => ({
      ...group(values.map((value) => trajectory("x", { metadata: { value } }))),
      metadata: { kind: "x", failed },
    });
    const fn: RewardFunction = ({ metadata }) => metadata["value"] as number | null;
    for (const aggregation of ["sum_then_normalize", "normalize_then_sum"] as const) {
      const rewards = combineRewards([{ name: "rule", fn }], { aggregation });
      const given = [
        marked("judge_failed", [1, null]),
        marked("zero_variance", [1, 0]),
        marked("judge_failed", [null, null]),
        marked("zero_variance", [null, null]),
        marked("of my own", [1, 0]),
      ];
      const before = structuredClone(given);
      const { groups } = await rewards.score(given);
      expect(given).toEqual(before);
      expect(groups.map(({ metadata }) => metadata)).toEqual([
        { kind: "x" },
        { kind: "x" },
        { kind: "x", failed: "judge_failed" },
        { kind: "x", failed: "zero_variance" },
        { kind: "x", failed: "of my own" },
      ]);
    }
  });

  it("says once a call how many trajectories no function applies to", async () => {
    const fn: RewardFunction = (_trajectory, { index }) => (index === 0 ? 1 : null);
    const { score } = combineRewards([{ name: "f", fn }]);
    const one = group([trajectory("x"), trajectory("x")]);
    warn.mockClear();
    await score([one, one, one]);
    expect(warn.mock.calls).toEqual([[expect.stringContaining("3 of 6 trajectories")]]);
    await score([group([trajectory("x")])]);
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it("runs asynchronous functions at once, no more than concurrency", async () => {
    let running = 0;
    let most = 0;
    const slow: RewardFunction = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running -= 1;
      return 1;
    };
    const rewards = combineRewards([{ name: "slow", fn: slow }], { concurrency: 3 });
    await rewards.score([group(Array.from({ length: 9 }, () => trajectory("x")))]);
    expect(most).toBe(3);
  });

  it("makes no reward of NaN, of undefined or of an error", async () => {
    const broken: RewardFunction[] = [
      () => Number.NaN,
      () => Number.POSITIVE_INFINITY,
      () => undefined as never,
      () => "1" as never,
      () => {
        throw new Error("boom");
      },
    ];
    for (const fn of broken) {
      await expect(
        combineRewards([{ name: "broken", fn }]).score([group([trajectory("x")])]),
      ).rejects.toMatchObject({ code: "invalid_reward", message: /"broken" on trajectory 0/ });
    }
  });

  it("wants names, each once", () => {
    expect(() => combineRewards([])).toThrow(/at least one/);
    expect(() => combineRewards([{ fn: () => 1 }])).toThrow(/no name/);
    expect(() =>
      combineRewards([
        { fn: say(1), name: "a" },
        { fn: say(2), name: "a" },
      ]),
    ).toThrow(/Two reward functions/);
    expect(() => combineRewards([{ fn: say(1), name: "a", weight: Number.NaN }])).toThrow(/weight/);
  });
});

describe("format", () => {
  it("reads thinking that the server split off", () => {
    const split = trajectory([
      { role: "assistant", content: "\n<answer>4</answer>", reasoning_content: "2 + 2" },
    ]);
    const context = { group: group([]), index: 0 };
    expect(thinkFormat()(split, context)).toBe(1);
    expect(thinkAnswerFormat()(split, context)).toBe(1);
  });

  /** An answer of our own server: the parsed message, and what was sampled. */
  const sampledAs = (text: string | null, message: object, finish_reason = "stop") =>
    trajectory([{ role: "assistant", content: null, ...message }], {
      turns: [{ message: 2, text, finish_reason }],
    });
  const context = { group: group([]), index: 0 };
  const both = (one: ReturnType<typeof trajectory>) => [
    thinkFormat()(one, context),
    thinkAnswerFormat()(one, context),
  ];

  it("sees what was sampled, whatever a parser has made of it", () => {
    // A parser of Qwen's family strips the line ends on both sides of </think>.
    const answer = { reasoning_content: "2 + 2", content: "<answer>4</answer>" };
    expect(both(sampledAs("<think>\n2 + 2\n</think>\n<answer>4</answer>", answer))).toEqual([1, 1]);
    expect(both(sampledAs("<think>\n2 + 2\n</think>\n\n<answer>4</answer>", answer))).toEqual([
      1, 1,
    ]);
    expect(both(sampledAs("<think>\n2 + 2\n</think> <answer>4</answer>", answer))).toEqual([1, 0]);
    // Of an empty thought a parser says nothing.
    const plain = { content: "<answer>4</answer>" };
    expect(both(sampledAs("<think>\n\n</think>\n\n<answer>4</answer>", plain))).toEqual([1, 1]);
    expect(both(sampledAs("<answer>4</answer>", plain))).toEqual([0, 0]);
  });

  it("pays nothing for a thought that never closes", () => {
    const open = { reasoning_content: "on and on" };
    expect(both(sampledAs("<think>on and on", open, "length"))).toEqual([0, 0]);
    // Another provider's answer, of which the tags are not known.
    expect(both(trajectory([{ role: "assistant", content: "", ...open }]))).toEqual([0, 0]);
    expect(both(trajectory([{ role: "assistant", content: null, ...open }]))).toEqual([0, 0]);
    const cut = trajectory([{ role: "assistant", content: " ", ...open }], {
      turns: [{ message: 7, text: "of another message", finish_reason: "length" }],
    });
    expect(both(cut)).toEqual([1, 0]);
  });

  it("does not judge what it cannot see", () => {
    expect(both(sampledAs(null, { content: "<answer>4</answer>" }))).toEqual([null, null]);
  });

  it("reads another provider's split answer as well formed", () => {
    const split = {
      role: "assistant" as const,
      reasoning_content: "so",
      content: "<answer>4</answer>",
    };
    expect(both(trajectory([split]))).toEqual([1, 1]);
  });

  it.each([
    ["<think>a</think>\n<answer>b</answer>", 1, 1],
    ["<think>a</think> b", 1, 0],
    ["<think>a <b> c</think>\n<answer>d</answer>", 1, 1],
    ["<think>a<think></think>\n<answer>b</answer>", 0, 0],
    ["x<think>a</think>\n<answer>b</answer>", 0, 0],
    ["<think>a</think>\n<answer>b</answer> and more", 1, 0],
    // As the tutorial's pattern has it.
    ["<think>a</think>\n<answer>1</answer> junk <answer>2</answer>", 1, 1],
    ["", 0, 0],
  ])("%j", (text, think, answer) => {
    expect(give(thinkFormat(), text)).toBe(think);
    expect(give(thinkAnswerFormat(), text)).toBe(answer);
  });
});

describe("an answer in its tag", () => {
  it.each([
    ["<answer>4</answer>", "4", "4"],
    ["so <answer> 4 </answer>.", "4", "4"],
    ["<answer>\n4\n</answer>", "4", null],
    ["<answer>\n4\n</answer>\n<answer>5</answer>", "4", "5"],
    ["<answer>1</answer> junk <answer>2</answer>", "1", "1"],
    ["</answer> <answer>4</answer>", "4", null],
    ["<answer>4", null, null],
    ["4</answer>", null, null],
  ])("%j", (text, anywhere, onOneLine) => {
    expect(taggedAnswer(text)).toBe(anywhere);
    if (!text.startsWith("</answer>")) expect(taggedAnswerOnOneLine(text)).toBe(onOneLine);
  });

  it("may stand on lines of its own for what matches it; the tutorial's rule can be had", () => {
    const text = "<think>x</think>\n<answer>\n42\n</answer>";
    expect(give(numericMatch({ expected: () => 42 }), text)).toBe(1);
    expect(give(exactMatch({ expected: () => "42" }), text)).toBe(1);
    expect(give(arithmetic({ numbers: () => [42], target: () => 42 }), text)).toBe(1);
    const strict = { expected: () => "42", extract: taggedAnswerOnOneLine };
    expect(give(exactMatch(strict), text)).toBe(0);
  });
});

describe("arithmetic", () => {
  const fn = arithmetic({
    numbers: () => [3, 8, 8, 3],
    target: (_trajectory, { group: { scenario } }) => (scenario as { target: number }).target,
  });

  it.each([
    ["<answer>8 / (3 - 8 / 3)</answer>", 1],
    ["<answer>8 / (3 - 8 / 3) </answer> so 24", 1],
    ["<answer>8 * 3</answer>", 0],
    ["<answer>24</answer>", 0],
    ["<answer>8 / (3 - 8 / 3) + 3 - 3</answer>", 0],
    ["<answer>(83 - 8) / 3</answer>", 0],
    ["8 / (3 - 8 / 3)", 0],
    ["<answer>8 / (3 - 8 / 3) or 1</answer>", 0],
    ["<answer>__import__('os').exit(1)</answer>", 0],
  ])("%s", (text, expected) => {
    expect(give(fn, text)).toBe(expected);
  });

  it("takes numbers at most once, or as often as one likes, when told so", () => {
    const options = { numbers: () => [3, 8, 5], target: () => 24 };
    const atMost = arithmetic({ ...options, use: "at-most-once" });
    expect(give(atMost, "<answer>3 * 8</answer>")).toBe(1);
    expect(give(atMost, "<answer>3 * 8 + 8 - 8</answer>")).toBe(0);
    const any = arithmetic({ ...options, use: "any" });
    expect(give(any, "<answer>8 + 8 + 8</answer>")).toBe(1);
    expect(give(any, "<answer>24</answer>")).toBe(0);
  });

  it("is right exactly at the target, and at its tolerance", () => {
    const exact = arithmetic({ numbers: () => [1, 3], target: () => 4, tolerance: 0 });
    expect(give(exact, "<answer>1 + 3</answer>")).toBe(1);
    expect(give(exact, "<answer>3 - 1</answer>")).toBe(0);
    const near = (tolerance: number) =>
      arithmetic({ numbers: () => [1, 4], target: () => 0, tolerance });
    expect(give(near(0.25), "<answer>-1 / 4</answer>")).toBe(1);
    expect(give(near(0.2499), "<answer>-1 / 4</answer>")).toBe(0);
    expect(() => near(-1)).toThrow(/tolerance/);
    expect(() => near(Number.NaN)).toThrow(/tolerance/);
  });

  it.each<[string, number[], number, 0 | 1]>([
    ["8 + -3", [8, -3], 5, 1],
    ["8 - (-3)", [8, -3], 11, 1],
    ["-3 + 8", [8, -3], 5, 1],
    ["-3 + 8", [8, 3], 5, 1],
    ["-3 + 3 + 8", [3, 8, -3], 8, 1],
    ["8 - 3", [8, -3], 5, 0],
    ["3 + 8", [8, -3], 11, 0],
    ["-3 ** 2", [-3, 2], -9, 0],
    ["(-3) ** 2", [-3, 2], 9, 1],
    ["-3 + -3 + 8", [8, -3], 2, 0],
    ["-(8 + 3)", [8, -3], -11, 0],
  ])("%s of %j", (text, numbers, target, expected) => {
    const signed = arithmetic({ numbers: () => numbers, target: () => target });
    expect(give(signed, `<answer>${text}</answer>`)).toBe(expected);
  });

  it("does not apply where there is no such task", () => {
    expect(give(arithmetic({ numbers: () => null, target: () => 1 }), "x")).toBeNull();
    expect(give(arithmetic({ numbers: () => [1], target: () => undefined }), "x")).toBeNull();
  });

  it("costs nothing, whatever is written", () => {
    // What was computed would take longer than a test may last.
    for (const text of [
      "9 ** 9 ** 9",
      "9 ** 9 ** 9 ** 9 ** 9",
      "(9 ** 999) ** 999",
      "9 ** -(9 ** 9)",
      "0 ** -1",
      `2 ** ${"9".repeat(1500)}`,
      "9".repeat(1990),
      `${"(".repeat(1000)}1${")".repeat(1000)}`,
      `${"-".repeat(1999)}1`,
      `${"999999999*".repeat(190)}9`,
      `1${"/777777777".repeat(190)}`,
      "1".repeat(1e6),
    ]) {
      expect(evaluateExpression(text)).toBeNull();
    }
    expect(evaluateExpression("1 ** 999999999999")?.value.top).toBe(1n);
    expect(evaluateExpression("0.1 + 0.2")?.value).toEqual({ top: 3n, bottom: 10n });
  });
});
