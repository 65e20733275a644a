import { HoneError } from "@hone/core";
import { expect, it, vi } from "vitest";
import { pause, unlessAborted, withinLimit } from "./abort.ts";

const never = new Promise<never>(() => undefined);
const aborted = (reason: unknown) => AbortSignal.abort(reason);

it("a wait ends when the signal aborts, also one that has", async () => {
  const ending = new AbortController();
  const waits = [unlessAborted(never, ending.signal), pause(60_000, ending.signal)];
  ending.abort("enough");
  const all = [...waits, unlessAborted(never, ending.signal), pause(60_000, ending.signal)];
  for (const wait of all) {
    await expect(wait).rejects.toMatchObject({ code: "aborted", cause: "enough" });
  }
});

it("the reason of a signal is kept where it is one of ours; a caller may have its own error", async () => {
  const reason = new HoneError("Too long.", { code: "timeout" });
  await expect(unlessAborted(never, aborted(reason))).rejects.toBe(reason);
  const own = new Error("own");
  await expect(unlessAborted(never, aborted(reason), () => own)).rejects.toBe(own);
});

it("a wait leaves no listener and no timer behind, and what fails later is heard by nobody", async () => {
  vi.useFakeTimers();
  try {
    const { signal } = new AbortController();
    const added = vi.spyOn(signal, "addEventListener");
    const removed = vi.spyOn(signal, "removeEventListener");
    expect(await unlessAborted(Promise.resolve(1), signal)).toBe(1);
    const limited = withinLimit(50, undefined, () => never);
    const late = withinLimit(50, undefined, async (ending) => {
      await new Promise((resolve) => ending.addEventListener("abort", resolve));
      throw new Error("late");
    });
    const both = Promise.allSettled([limited, late]);
    await vi.advanceTimersByTimeAsync(50);
    expect(await both).toMatchObject([
      { reason: { name: "TimeoutError" } },
      { reason: { name: "TimeoutError" } },
    ]);
    expect(await withinLimit(50, undefined, () => Promise.resolve(2))).toBe(2);
    expect(vi.getTimerCount()).toBe(0);
    expect(removed.mock.calls.length).toBe(added.mock.calls.length);
  } finally {
    vi.useRealTimers();
  }
});

it("a limit beyond the longest timer is no limit of nothing", async () => {
  const slow = new Promise((resolve) => setTimeout(() => resolve("done"), 20));
  expect(await withinLimit(2 ** 40, undefined, () => slow)).toBe("done");
});

it("work under a limit ends with the caller's signal, though it does not heed its own", async () => {
  const caller = new AbortController();
  const working = withinLimit(60_000, caller.signal, () => never);
  caller.abort("enough");
  await expect(working).rejects.toMatchObject({ code: "aborted", cause: "enough" });
  await expect(withinLimit(1, caller.signal, () => never)).rejects.toMatchObject({
    code: "aborted",
  });
});
