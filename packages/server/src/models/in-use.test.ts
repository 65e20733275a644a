import { expect, it } from "vitest";
import type { Model } from "../policies/models.ts";
import { modelsInUse } from "./in-use.ts";

const model = (name: string, base = "one", quantize: Model["quantize"] = null): Model => ({
  ...{ name, base, quantize, lora: { r: 8, alpha: 16 }, seed: 1, chatTemplateKwargs: null },
  ...{ learnt: 3, served: 3, cursor: null, createdAt: 0 },
});

it("are those of the base that somebody plays or trains, and neither finished ones nor those of another base", () => {
  const models = [
    ...["old", "older", "oldest", "played", "trained"].map((name) => model(name)),
    ...[model("elsewhere", "two"), model("quantized", "one", "nf4")],
  ];
  const inUse = (busy: readonly string[], trained: readonly string[]): number =>
    modelsInUse(
      { name: "one" },
      {
        models: { list: () => models },
        live: { requestsOf: (name) => (busy.includes(name) ? 2 : 0) },
        operations: { unfinished: (name) => (trained.includes(name) ? ["op_1"] : []) },
      },
    );
  expect(inUse([], [])).toBe(0);
  expect(inUse(["played", "elsewhere", "quantized"], [])).toBe(1);
  expect(inUse(["played"], ["played", "trained"])).toBe(2);
});
