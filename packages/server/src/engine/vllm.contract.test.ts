import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { describeEngine } from "./contract.ts";
import { startVllm, startVllmChild } from "./testing/running-engine.ts";

// Only when asked for: `pnpm test:engine --engine vllm`. It takes minutes and 3.4 GB of packages.
const wanted = (process.env["HONE_TEST_ENGINES"] ?? "embedded").split(",");

describe.skipIf(!wanted.includes("vllm"))("vLLM", () => {
  describeEngine("vllm", startVllm);

  it.each(["stop", "kill"] as const)(
    "leaves no file in the system's temporary folder after a %s",
    async (how) => {
      const temporary = mkdtempSync(join(tmpdir(), "hone-tmp-"));
      const files = (): string[] =>
        readdirSync(temporary, { recursive: true, encoding: "utf8" }).filter(
          (name) => !name.startsWith("tsx-"),
        );
      const child = await startVllmChild({ TMPDIR: temporary });
      try {
        expect(files().some((name) => /vllm_dist_/.test(name))).toBe(true);
      } finally {
        await child[how]();
      }
      await expect.poll(files, { timeout: 10_000 }).toEqual([]);
      rmSync(temporary, { recursive: true });
    },
    300_000,
  );
});
