import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { keepInHubCache } from "../../testing/hub-cache.ts";
import { testBase } from "../../testing/running-engine.ts";
import { slotsMemory, vllmChild } from "./child.ts";
import { loraTargets, slotBytes } from "./lora-targets.ts";

const projections = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"];

const cache = mkdtempSync(join(tmpdir(), "hone-lora-targets-"));
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(cache, { recursive: true, force: true });
});

it("are the matrices in the layers of a base, without head and embeddings", () => {
  expect(loraTargets(testBase)).toEqual(projections);
});

it("of a hub id are those of its files, and what nearly all bases have before they are there", () => {
  vi.stubEnv("HF_HUB_CACHE", cache);
  expect(loraTargets("Owner/base-1B")).toEqual([...projections, "gate_up_proj", "qkv_proj"]);
  keepInHubCache(cache, "Owner/base-1B");
  expect(loraTargets("Owner/base-1B")).toEqual(["o_proj", "q_proj", "up_proj"]);
});

it("are said to a vLLM without a GPU, whose core would die of a probe otherwise", () => {
  const argsOf = (device: "cpu" | "cuda", base: string): readonly string[] => {
    const { args } = vllmChild({ python: "python", base, servedName: "base", device });
    return typeof args === "function" ? args() : args;
  };
  const flag = "--lora-target-modules";
  const args = argsOf("cpu", testBase);
  expect(args.slice(args.indexOf(flag) + 1, args.indexOf(flag) + 8)).toEqual(projections);
  expect(argsOf("cpu", "Qwen/Qwen3-4B")).toContain(flag);
  expect(argsOf("cuda", testBase)).not.toContain(flag);
});

it("take memory for each policy by its rank, as an adapter's files do", () => {
  const {
    hidden_size: width,
    num_hidden_layers: layers,
    ...config
  } = JSON.parse(readFileSync(join(testBase, "config.json"), "utf8")) as Record<string, number>;
  const head = config["head_dim"] ?? (width as number) / (config["num_attention_heads"] as number);
  const asked = head * (config["num_attention_heads"] as number);
  const kept = head * (config["num_key_value_heads"] as number);
  const inner = config["intermediate_size"] as number;
  const sides = 2 * (width as number) * 2 + 2 * asked + 2 * kept + 3 * ((width as number) + inner);
  const each = slotBytes(testBase, 16, "bfloat16");
  expect(each).toBe(2 * 16 * (layers as number) * sides);
  expect(slotBytes(testBase, 32, "float32")).toBe(4 * each);
  expect(slotBytes("Owner/not-here", 16, "bfloat16")).toBe(0);

  const base = { base: testBase, dtype: "bfloat16" as const };
  expect(slotsMemory(base)).toBe(6 * each);
  expect(slotsMemory({ ...base, maxLoras: () => 24, maxLoraRank: () => 30 })).toBe(48 * each);
  const flags = ["--max-loras", "2", "--max-lora-rank=64"];
  expect(slotsMemory({ ...base, maxLoras: 24, flags })).toBe(8 * each);
});
