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

type Options = Parameters<typeof createReconciler>[0];

/** Of an engine that serves nothing yet and takes loads so. */
function reconcilerOf(
  load: ReturnType<Options["pool"]>["load"],
  onUnavailable: Options["onUnavailable"] = () => undefined,
) {
  const current = () => ({ generation: 0, adapters: [] });
  const liveSet = { current, onChange: () => () => undefined } as never;
  const cache = { folderOf: async () => "/cache/m@1", trim: async () => undefined } as never;
  return createReconciler({
    pool: () => ({ load, unload: () => Promise.resolve(), answerOf: () => null, liveSet }),
    ...{ cache, base: () => base, onChange: () => undefined, onUnavailable },
    signal: new AbortController().signal,
    log: pino({ level: "silent" }),
  });
}

it.each([
  ["engine_unavailable", 1],
  ["engine_error", 0],
] as const)("an engine whose load ends with %s is looked at %d times", async (code, times) => {
  let looks = 0;
  const reconciler = reconcilerOf(
    () => Promise.reject(new HoneError("It did not answer in time.", { code })),
    () => looks++,
  );
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
  const reconciler = reconcilerOf(async ({ policy }) => void loaded.push(policy));
  const live = { known: true as const, generation: 1, probeTolerance: null };
  reconciler.take({ ...live, base: told, adapters: [adapter] });
  await reconciler.apply();
  expect(loaded).toEqual(refusal ? [] : ["m@1"]);
  expect(reconciler.snapshot().refused).toMatchObject(
    refusal ? [{ fault: "adapter", reason: expect.stringMatching(refusal) }] : [],
  );
});
