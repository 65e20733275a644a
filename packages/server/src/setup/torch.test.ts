import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, beforeEach, expect, it, vi } from "vitest";
import { chooseTorch, rememberTorch, torchSources } from "./torch.ts";

const folder = mkdtempSync(join(tmpdir(), "hone-torch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach((test) => {
  vi.stubEnv("HONE_CACHE", join(folder, test.task.id));
  vi.stubEnv("HONE_TORCH_INDEX", "");
  return () => vi.unstubAllEnvs();
});

/** A machine whose `nvidia-smi` says this. */
function withDriver(output: string, status = 0): void {
  const bin = mkdtempSync(join(folder, "bin-"));
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "nvidia-smi"), `#!/bin/sh\necho "${output}"\nexit ${status}\n`);
  chmodSync(join(bin, "nvidia-smi"), 0o755);
  vi.stubEnv("PATH", [bin, process.env["PATH"]].join(delimiter));
}

it.runIf(process.platform === "linux")("chooses by the driver", async () => {
  withDriver("580.159.04");
  expect(await chooseTorch()).toMatchObject({ build: "cuda", why: "NVIDIA driver 580.159.04" });
  withDriver("550.90.07");
  const old = await chooseTorch();
  expect(old.build).toBe("cpu");
  expect(old.why).toMatch(/550\.90\.07 is too old for CUDA 13\.0.*--torch/);
  // What the tool prints where the module is not loaded.
  withDriver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9);
  expect(await chooseTorch()).toMatchObject({ build: "cpu", why: "no NVIDIA driver was found" });
});

it.runIf(existsSync("/proc/self"))("says that the cache cannot be made", async () => {
  vi.stubEnv("HONE_CACHE", "/proc/hone");
  const choice = await chooseTorch("cpu");
  expect(() => rememberTorch(choice)).toThrow(
    /^The folder \/proc\/hone cannot be made .* Name another one/,
  );
});

it("keeps to what was asked for until it is told otherwise", async () => {
  withDriver("580.159.04");
  rememberTorch(await chooseTorch("cpu"));
  expect(await chooseTorch()).toMatchObject({ build: "cpu", why: "as asked for before" });
  vi.stubEnv("HONE_TORCH_INDEX", "https://torch.example/simple/");
  expect((await chooseTorch()).build).toBe("https://torch.example/simple");
  expect((await chooseTorch("cuda")).build).toBe("cuda");
  vi.stubEnv("HONE_TORCH_INDEX", "");
  // Asking without setting up changes nothing.
  expect((await chooseTorch()).build).toBe("cpu");
  rememberTorch(await chooseTorch("auto"));
  expect((await chooseTorch()).why).not.toContain("before");
});

it("refuses what is neither a build nor an index", async () => {
  await expect(chooseTorch("gpu")).rejects.toThrow('"gpu" is no build of torch');
});

it("looks for the small build first, and never takes a CPU build for CUDA", () => {
  const cpu = torchSources("cpu", "linux-x86_64");
  expect(cpu.map(({ requirement }) => requirement)).toEqual([
    "torch==2.13.0+cpu",
    "torch==2.13.0+cpu",
    "torch==2.13.0",
  ]);
  expect(cpu.map(({ index }) => index === null)).toEqual([true, false, true]);
  // pip takes 2.13.0+cpu for "==2.13.0".
  expect(torchSources("cuda", "linux-x86_64")[0]?.requirement).toBe("torch===2.13.0");
  expect(torchSources("cpu", "darwin-arm64")).toHaveLength(1);
  const own = torchSources("https://torch.example", "linux-x86_64");
  expect(own.map(({ index }) => index)).toEqual(["https://torch.example"]);
});
