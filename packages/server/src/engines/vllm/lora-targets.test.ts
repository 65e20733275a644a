import { expect, it } from "vitest";
import { testBase } from "../../testing/running-engine.ts";
import { vllmChild } from "./child.ts";
import { loraTargets } from "./lora-targets.ts";

const projections = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"];

it("are the matrices in the layers of a base, without head and embeddings", () => {
  expect(loraTargets(testBase)).toEqual(projections);
  expect(loraTargets("Qwen/Qwen3-4B")).toEqual([]);
});

it("are said to a vLLM without a GPU, whose core would die of a probe otherwise", () => {
  const argsOf = (device: "cpu" | "cuda", base: string): readonly string[] => {
    const { args } = vllmChild({ python: "python", base, servedName: "base", device });
    return typeof args === "function" ? args() : args;
  };
  const flag = "--lora-target-modules";
  const args = argsOf("cpu", testBase);
  expect(args.slice(args.indexOf(flag) + 1, args.indexOf(flag) + 8)).toEqual(projections);
  expect(argsOf("cpu", "Qwen/Qwen3-4B")).not.toContain(flag);
  expect(argsOf("cuda", testBase)).not.toContain(flag);
});
