import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { completeMarker } from "./paths.ts";
import { findVllm, placeOf } from "./vllm.ts";
import { missingFor } from "./vllm-machine.ts";

const machine = {
  platform: "linux",
  arch: "x64",
  glibc: "2.36",
  cpuFlags: new Set(["avx2"]),
  driver: null,
};

describe("what a machine lacks for vLLM", () => {
  it.each([
    ["nothing", {}, []],
    ["Linux", { platform: "darwin" }, [/^Linux: this is darwin/]],
    ["glibc", { glibc: "2.27" }, [/^glibc 2\.28 or newer: this is 2\.27$/]],
    ["the C library", { glibc: null }, [/another C library/]],
    ["AVX2", { cpuFlags: new Set(["sse4_2"]) }, [/AVX2/]],
    ["two things", { glibc: "2.17", cpuFlags: new Set<string>() }, [/2\.17/, /AVX2/]],
  ])("is told: %s", (_, lacking, told) => {
    const missing = missingFor("cpu", { ...machine, ...lacking });
    expect(missing).toEqual(told.map((one) => expect.stringMatching(one)));
  });

  it("is no AVX2 on ARM", () => {
    expect(missingFor("cpu", { ...machine, arch: "arm64", cpuFlags: new Set() })).toEqual([]);
  });

  it.each([
    ["a GPU", null, [/^an NVIDIA GPU and its driver: none was found$/]],
    ["a newer driver", "550.54.14", [/^NVIDIA driver 580 or newer: this is 550\.54\.14$/]],
    ["nothing", "580.159.04", []],
  ])("with CUDA is told: %s", (_, driver, told) => {
    const missing = missingFor("cuda", { ...machine, cpuFlags: new Set(), driver });
    expect(missing).toEqual(told.map((one) => expect.stringMatching(one)));
  });
});

it("says for which device vLLM is installed where that is another one", () => {
  const cache = mkdtempSync(join(tmpdir(), "hone-cache-"));
  vi.stubEnv("HONE_CACHE", cache);
  vi.stubEnv("HONE_VLLM_PYTHON", "");
  try {
    expect(() => findVllm("cpu")).toThrow(/Run `npx @hone\/server setup --engine vllm`/);
    const { dir, python } = placeOf("cuda");
    mkdirSync(join(dir, "bin"), { recursive: true });
    for (const file of [python, join(dir, completeMarker)]) writeFileSync(file, "");
    expect(findVllm("cuda")).toBe(python);
    expect(() => findVllm("cpu")).toThrow(/installed for --device cuda.*Add --device cuda/);
  } finally {
    vi.unstubAllEnvs();
    rmSync(cache, { recursive: true });
  }
});
