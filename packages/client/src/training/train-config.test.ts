import { expect, test } from "vitest";
import { checkTrainConfig } from "./train-config.ts";

const message = (config: object): string => {
  try {
    checkTrainConfig("train()", config);
  } catch (error) {
    return (error as Error).message;
  }
  return "";
};

test("every objective has the options of its own, with their defaults", () => {
  expect(checkTrainConfig("train()", {})).toMatchObject({
    type: "policy_gradient",
    epsilonHigh: 0.2,
  });
  const dapo = checkTrainConfig("train()", { type: "dapo", epsilonHigh: 0.28, beta: 0.1 });
  expect(dapo).toMatchObject({
    type: "dapo",
    epsilonLow: 0.2,
    epsilonHigh: 0.28,
    learningRate: 1e-4,
  });
  expect(checkTrainConfig("train()", { type: "gspo" })).toMatchObject({ epsilonLow: 3e-4 });
});

test("an option that does nothing is refused by name", () => {
  expect(message({ type: "sapo", epsilonLow: 0.2 })).toBe(
    'train(): type "sapo" has the unknown key "epsilonLow".',
  );
  expect(message({ importanceLevel: "token" })).toBe(
    'train(): the options has the unknown key "importanceLevel".',
  );
  expect(message({ type: "grpo", klIn: "loss" })).toBe(
    "train(): klIn is wrong: it does nothing while beta is 0. Leave it out, or change beta.",
  );
  expect(message({ type: "grpo", scaleRewards: "none", std: "sample" })).toBe(
    'train(): std is wrong: it does nothing while scaleRewards is "none". Leave it out, or change scaleRewards.',
  );
  expect(message({ samplerCorrection: "none", importanceCap: 2 })).toBe(
    'train(): importanceCap is wrong: it does nothing while samplerCorrection is "none". ' +
      "Leave it out, or change samplerCorrection.",
  );
  expect(message({ samplerCorrection: "none" })).toBe("");
  expect(message({ samplerCorrection: "sequence_mask", importanceCap: 3 })).toBe("");
  expect(message({ type: "ppo" })).toMatch(
    /^train\(\): type is wrong: it is one of policy_gradient, grpo, /,
  );
});

test("the default objective takes the penalties that most have", () => {
  const given = {
    beta: 0.1,
    klIn: "reward",
    entropyCoef: 0.01,
    samplerCorrection: "token_mask",
  } as const;
  expect(checkTrainConfig("train()", given)).toMatchObject({ type: "policy_gradient", ...given });
  expect(message({ klIn: "reward" })).toMatch(/klIn is wrong: it does nothing while beta is 0/);
  expect(message({ samplerCorrectionMax: 4 })).toMatch(/unknown key "samplerCorrectionMax"/);
});

test("bounds under which nothing would train are refused", () => {
  for (const [config, words] of [
    [{ type: "grpo", delta: 0.5 }, /delta is wrong: it must be above 1/],
    [{ type: "grpo", samplerCorrectionMin: 4 }, /samplerCorrectionMin is wrong: .* which is 3/],
    [{ samplerCorrectionMin: 2.5 }, /samplerCorrectionMin is wrong: .* which is 2/],
    [{ samplerCorrectionMin: 1.5, importanceCap: 1.2 }, /Min is wrong: .* which is 1.2/],
    [{ mismatchMask: "token", mismatchMin: 6 }, /mismatchMin is wrong: .* which is 5/],
    [{ mismatchMask: "token", mismatchMin: 2, mismatchMax: 2 }, /mismatchMin is wrong/],
    [{ mismatchMask: "token", mismatchMax: 0.3 }, /mismatchMax is wrong: .* which is 0.5/],
  ] as const) {
    expect(message(config)).toMatch(words);
  }
  expect(() =>
    checkTrainConfig("train()", { mismatchMask: "token", mismatchMin: 6, mismatchMax: 8 }),
  ).not.toThrow();
});
