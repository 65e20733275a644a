import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { HoneError } from "@hone/core";
import { pino } from "pino";
import { beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { cardMemory, type CardMemory } from "../../setup/nvidia.ts";
import { vllmChild } from "./child.ts";
import { createCardGuard, memoryShare, type CardGuardOptions } from "./card-memory.ts";

const gib = 1024 ** 3;
const card = (total: number, free: number): CardMemory => ({
  total: total * gib,
  free: free * gib,
});
const needs = (base: number, step: number, engines = 1) => ({
  ...{ base: base * gib, step: step * gib, engines },
});

describe("vLLM's share of a card", () => {
  it.each([
    // An 80 GiB card with a base of 8 GiB loaded by the trainer: 71.2 - 9 - 1.6 of 80.
    [card(80, 71.2), needs(8, 9), 0.75],
    // One of its own.
    [card(80, 79.4), needs(8, 0), 0.9],
    // Two vLLMs on what the trainer leaves.
    [card(80, 71.2), needs(8, 9, 2), 0.37],
    // A small base on a small card: 24 - 1.2 - 0.5 - 3 - 1 of 24.
    [card(24, 22.3), needs(1.2, 3), 0.76],
    [card(140, 130), needs(15.3, 20), 0.76],
  ])("of %j for %j is %d", (memory, wanted, share) => {
    expect(memoryShare(memory, wanted)).toBe(share);
    // Both fit, and so does what allocators round up.
    const left = memory.free - wanted.engines * share * memory.total - wanted.step;
    expect(left).toBeGreaterThanOrEqual(gib);
  });

  it("is refused where the policies that it samples from at a time do not fit either", () => {
    const memory = card(80, 20.5);
    const many = { ...needs(8, 0), slots: 9 * gib };
    expect(memoryShare(memory, { ...many, slots: 6 * gib })).toBe(0.23);
    expect(() => memoryShare(memory, many)).toThrow(
      "vLLM needs at least 19.0 GiB (the base, 9.0 GiB for policies, and 2 GiB to work with)",
    );
  });

  it("is refused where the card is too small for both, with the figures and what to do", () => {
    const refused = expect.objectContaining({
      ...{ code: "invalid_config", param: "engine" },
      message: expect.stringMatching(
        /of 24\.0 GiB, 15\.5 GiB are free, a step of the trainer takes 9\.0 GiB, and vLLM needs at least 9\.5 GiB.*embedded/,
      ),
    });
    expect(() => memoryShare(card(24, 15.5), needs(7.5, 9))).toThrow(refused);
    expect(() => memoryShare(card(24, 20), needs(9, 0, 2))).toThrow("each of 2 vLLMs needs");
  });
});

describe("a start of vLLM", () => {
  let readings: (CardMemory | null)[];
  let told: string[];
  let lines: string[];
  beforeEach(() => {
    [readings, told, lines] = [[], [], []];
  });
  const guardOf = (more: Partial<CardGuardOptions> = {}) =>
    createCardGuard({
      ...{ name: "vLLM", cards: ["0"], given: null, pollMs: 1, freeMs: 20 },
      needs: () => needs(8, 9),
      // The last reading stays.
      readCard: async () => (readings.length > 1 ? readings.shift() : readings[0]) ?? null,
      tell: (line) => void told.push(line),
      log: pino({ level: "warn" }, { write: (line: string) => void lines.push(line) }) as never,
      ...more,
    });
  const { signal } = new AbortController();

  it("says what it takes, and takes the same again once what it held is free", async () => {
    readings = [card(80, 71.2)];
    const guard = guardOf({ freeMs: 30_000 });
    await guard.beforeStart(signal);
    expect(guard.share()).toBe(0.75);
    expect(told).toEqual([
      "vLLM gets 0.75 of its card: 60.0 GiB of 80.0 GiB, of which 71.2 GiB are free, 9.0 GiB for a step of the trainer. " +
        "-- --gpu-memory-utilization decides it instead",
    ]);
    // What its last process held becomes free in steps.
    readings = [card(80, 4), card(80, 30), card(80, 59.9), card(80, 62)];
    await guard.beforeStart(signal);
    expect(readings).toEqual([card(80, 62)]);
    expect(guard.share()).toBe(0.75);
    expect([told.length, lines]).toEqual([1, []]);
  });

  it("gets less where the trainer holds its part by now, and none where that is too little", async () => {
    readings = [card(80, 71.2)];
    const guard = guardOf();
    await guard.beforeStart(signal);
    readings = [card(80, 50)];
    await guard.beforeStart(signal);
    expect(guard.share()).toBe(0.6);
    expect(lines).toEqual([expect.stringContaining("gets less of its card")]);
    readings = [card(80, 3)];
    await expect(guard.beforeStart(signal)).rejects.toMatchObject({
      code: "engine_unavailable",
      message: expect.stringMatching(/of 80\.0 GiB on card 0, 3\.0 GiB are free.*takes 48\.0 GiB/),
      cause: expect.any(HoneError),
    });
  });

  it("with the operator's own share only waits, and says what holds it up", async () => {
    readings = [card(80, 10), card(80, 41)];
    const guard = guardOf({ given: 0.5 });
    await guard.beforeStart(signal);
    expect([guard.share(), told]).toEqual([null, []]);
    readings = [card(80, 39)];
    await expect(guard.beforeStart(signal)).rejects.toThrow("nvidia-smi names the processes");
  });

  it("looks at the card with the least, where it takes several", async () => {
    const free: Record<string, number> = { "0": 79, "1": 60 };
    const guard = guardOf({ cards: ["0", "1"], readCard: async (one) => card(80, free[one]!) });
    await guard.beforeStart(signal);
    expect(guard.share()).toBe(0.61);
  });

  it("goes on where the driver says nothing, and says so once", async () => {
    const guard = guardOf({ cards: ["0", "GPU-1"], readCard: async () => null });
    await guard.beforeStart(signal);
    await guard.beforeStart(signal);
    expect(guard.share()).toBeNull();
    expect(lines).toEqual([expect.stringContaining("nvidia-smi does not say")]);
  });

  it("is given up when the server stops", async () => {
    readings = [card(80, 1)];
    const stopping = new AbortController();
    const start = guardOf({ given: 0.9, freeMs: 60_000, pollMs: 60_000 }).beforeStart(
      stopping.signal,
    );
    stopping.abort();
    await expect(start).rejects.toMatchObject({ name: "AbortError" });
  });
});

it("the driver is asked for one card, in MiB", async () => {
  const folder = mkdtempSync(join(tmpdir(), "hone-nvidia-smi-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const tool = join(folder, "nvidia-smi");
  writeFileSync(
    tool,
    `#!/bin/sh
case "$*" in
  "-i 1 --query-gpu=memory.total,memory.free --format=csv,noheader,nounits") echo "81559, 80901" ;;
  "-i MIG-1 "*) echo "[N/A], [N/A]" ;;
  *) echo "No devices were found"; exit 6 ;;
esac
`,
  );
  chmodSync(tool, 0o755);
  vi.stubEnv("PATH", `${folder}${delimiter}${process.env["PATH"]}`);
  onTestFinished(() => void vi.unstubAllEnvs());
  const mib = 1024 ** 2;
  expect(await cardMemory("1")).toEqual({ total: 81_559 * mib, free: 80_901 * mib });
  expect(await cardMemory("MIG-1")).toBeNull();
  expect(await cardMemory("7")).toBeNull();
});

it("vLLM is told its share at each start, and the operator's own comes after it", () => {
  let share: number | null = null;
  const options = { python: "python", base: "/b", servedName: "b" };
  const flags = ["--gpu-memory-utilization", "0.4"];
  const { args } = vllmChild({ ...options, memoryShare: () => share, flags });
  const shown = (): string => (typeof args === "function" ? args() : args).join(" ");
  expect(shown().match(/--gpu-memory-utilization \S+/g)).toEqual(["--gpu-memory-utilization 0.4"]);
  share = 0.75;
  expect(shown()).toMatch(/--gpu-memory-utilization 0\.75 --gpu-memory-utilization 0\.4$/);
});
