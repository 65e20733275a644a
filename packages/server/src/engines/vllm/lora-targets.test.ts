import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { keepInHubCache } from "../../testing/hub-cache.ts";
import { testBase } from "../../testing/running-engine.ts";
import { vllmChild } from "./child.ts";
import { loraTargets } from "./lora-targets.ts";

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
