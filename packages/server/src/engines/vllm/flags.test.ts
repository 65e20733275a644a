import { describe, expect, it } from "vitest";
import { cardsOfReplica } from "../outside.ts";
import { cardsOf, checkVllmFlags, givenFlag } from "./flags.ts";

describe("flags for vLLM", () => {
  it.each([
    ["--dtype", "float16"],
    ["--dtyp=float16"],
    ["--dt", "float16"],
    ["--logprobs_mode", "raw_logprobs"],
    ["--logprobs-m", "raw_logprobs"],
    ["--quantization", "fp8"],
    ["-q", "fp8"],
    ["-qfp8"],
    ["--quantization-config", '{"linear": "fp8"}'],
    ["--data-parallel-siz=2"],
    ["--max-model-len", "4096"],
    ["--trust-remote-code"],
    ["--config", "flags.yaml"],
    ["--disable-log-stats"],
    ["--enable-sleep-mode"],
    ["--middleware", "mine.All"],
    ["--override-generation-config", '{"temperature": 0.5}'],
    ["--override-generation-config.temperature", "0.5"],
    ["--hf_overrides.rope_theta=1"],
    ["--max-num-seqs", "8", "--api-ke", "x"],
  ])("that Hone sets are refused, by their beginning too: %j", (...flags) => {
    expect(() => checkVllmFlags(flags)).toThrow(/is set by Hone: .*Leave it out/);
  });

  it.each([
    ["--gpu-memory-utilization", "0.5"],
    ["--max-num-batched-tokens=4096"],
    ["--config-format", "hf"],
    ["--data-parallel-size-local", "1"],
    ["-tp", "2", "--no-enable-prefix-caching"],
    ["--tensor-par", "2", "--gpu-mem=0.5"],
    ["--seed", "-1"],
  ])("of the operator's own go to vLLM: %j", (...flags) => {
    expect(() => checkVllmFlags(flags)).not.toThrow();
  });

  it.each<[string[], number]>([
    [[], 1],
    [["--tensor-parallel-size", "2"], 2],
    [["--tensor_parallel_size=4", "-pp", "2"], 8],
    [["-tp", "2", "-tp=4"], 4],
    [["-tp", "many"], 1],
    [["--tensor-par", "2"], 2],
    [["--tensor_p=2", "--pipe", "3"], 6],
    [["-t", "2"], 2],
    [["--seed", "-1", "--tokenizer-mode", "2"], 1],
  ])("%j compute on %d cards", (flags, count) => {
    expect(cardsOf(flags)).toBe(count);
  });

  it.each<[string[], string, string | undefined]>([
    [["--max-num-seq", "8"], "--max-num-seqs", "8"],
    [["--max-num-seqs", "8", "--max_num_se=16"], "--max-num-seqs", "16"],
    [["--max-num-batched-tokens", "8"], "--max-num-seqs", undefined],
    [["--max-lora-r", "64"], "--max-lora-rank", "64"],
    [["--max-lora-rank", "64"], "--max-loras", undefined],
    [["--kv-cache-mem=1"], "--kv-cache-memory-bytes", "1"],
    [["--kv-cache-dtype", "fp8"], "--kv-cache-memory-bytes", undefined],
    [["--", "1"], "--max-loras", undefined],
  ])("%j: of %s the value is %s", (flags, name, value) => {
    expect(givenFlag(flags, name)).toBe(value);
  });

  it("give each replica cards of its own, of those that are allowed", () => {
    expect([0, 1, 2].map((at) => cardsOfReplica(at, 1, ""))).toEqual(["0", "1", "2"]);
    expect([0, 1].map((at) => cardsOfReplica(at, 2, ""))).toEqual(["0,1", "2,3"]);
    expect([0, 1, 2].map((at) => cardsOfReplica(at, 2, "4,5,6,7"))).toEqual(["4,5", "6,7", "4,5"]);
    // Too few for one: vLLM says how many it would need.
    expect(cardsOfReplica(0, 4, "1,3")).toBe("1,3");
  });
});
