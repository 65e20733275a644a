import { HoneError } from "@hone/core";
import { pino } from "pino";
import { expect, it } from "vitest";
import { createReconciler } from "./reconciler.ts";

const base = { name: "base", fingerprint: "f".repeat(64) };
const adapter = {
  policy: "m@1",
  sha256: "a".repeat(64),
  asked: 1,
  bytes: 1,
  rank: 8,
  config: "{}",
};

it.each([
  ["engine_unavailable", 1],
  ["engine_error", 0],
] as const)("an engine whose load ends with %s is looked at %d times", async (code, times) => {
  let looks = 0;
  const reconciler = createReconciler({
    pool: () => ({
      load: () => Promise.reject(new HoneError("It did not answer in time.", { code })),
      unload: () => Promise.resolve(),
      answerOf: () => null,
      liveSet: {
        current: () => ({ generation: 0, adapters: [] }),
        onChange: () => () => undefined,
      } as never,
    }),
    cache: {
      folderOf: () => Promise.resolve("/cache/m@1"),
      trim: () => Promise.resolve(),
    } as never,
    base: () => base,
    onChange: () => undefined,
    onUnavailable: () => looks++,
    signal: new AbortController().signal,
    log: pino({ level: "silent" }),
  });
  reconciler.take({
    known: true,
    generation: 1,
    base,
    probeTolerance: null,
    adapters: [adapter],
  });
  await reconciler.apply().catch(() => undefined);
  expect(looks).toBe(times);
});

it.each<[string, { name: string; fingerprint: string | null }, RegExp | null]>([
  ["another name", { ...base, name: "other" }, /of the base "other"/],
  ["other files", { ...base, fingerprint: "e".repeat(64) }, /of other files of the base "base"/],
  ["files that nobody knows", { ...base, fingerprint: null }, null],
])("adapters of a base of %s", async (_, told, refusal) => {
  const loaded: string[] = [];
  const reconciler = createReconciler({
    pool: () => ({
      load: async ({ policy }) => void loaded.push(policy),
      unload: () => Promise.resolve(),
      answerOf: () => null,
      liveSet: { current: () => ({ generation: 0, adapters: [] }) } as never,
    }),
    cache: {
      folderOf: () => Promise.resolve("/cache/m@1"),
      trim: () => Promise.resolve(),
    } as never,
    base: () => base,
    onChange: () => undefined,
    onUnavailable: () => undefined,
    signal: new AbortController().signal,
    log: pino({ level: "silent" }),
  });
  const live = { known: true as const, generation: 1, probeTolerance: null };
  reconciler.take({ ...live, base: told, adapters: [adapter] });
  await reconciler.apply();
  expect(loaded).toEqual(refusal ? [] : ["m@1"]);
  expect(reconciler.snapshot().refused).toMatchObject(
    refusal ? [{ fault: "adapter", reason: expect.stringMatching(refusal) }] : [],
  );
});
