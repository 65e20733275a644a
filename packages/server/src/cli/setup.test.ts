import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { setupCommand } from "./setup.ts";

afterEach(() => vi.unstubAllEnvs());

const run = (...args: string[]) =>
  setupCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .parseAsync(args, { from: "user" });

it.each([["--torch", "cpu"], ["--model", "smollm2"], ["--bitsandbytes"], ["--test"]])(
  "does not look past %s in silence",
  async (...args) => {
    await expect(run("--check", ...args)).rejects.toThrow(/'--check' cannot be used with/);
  },
);

it("looks for vLLM's environment where it is asked to", async () => {
  const cache = mkdtempSync(join(tmpdir(), "hone-cache-"));
  // Any Python whose packages are in order will do for the worker's: the answer is about vLLM.
  const python = process.env["HONE_PYTHON"];
  vi.stubEnv("HONE_CACHE", cache);
  vi.stubEnv("HONE_VLLM_PYTHON", join(cache, "no-python"));
  try {
    if (python === undefined) throw new Error("The tests' Python is not named.");
    await expect(run("--check", "--engine", "vllm")).rejects.toThrow(
      /HONE_VLLM_PYTHON is .*no-python/,
    );
  } finally {
    rmSync(cache, { recursive: true });
  }
});
