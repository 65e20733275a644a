import { describe, expect, it, vi } from "vitest";
import type { Engine } from "../ports/engine.ts";
import type { Probe, ProbeAnswer } from "../ports/live-set.ts";
import { answerTo } from "../testing/adapters.ts";
import { probeEngine } from "./probe.ts";

/** Of which nothing is asked but what it samples. */
function answering(answer: ProbeAnswer): Engine {
  return {
    kind: "vllm",
    info: () => Promise.reject(new Error("not asked")),
    load: () => Promise.reject(new Error("not asked")),
    unload: () => Promise.reject(new Error("not asked")),
    served: () => Promise.reject(new Error("not asked")),
    async *generate() {
      yield answerTo(answer);
    },
  };
}

const at = (shift: number): ProbeAnswer => ({ prompt: [-3 + shift, -4 + shift], next: -1 });
/** Whose base is so far from the policy. */
const probeOf = (dtype: Probe["dtype"], far: number): Probe => ({
  ...{ dtype, ids: [11, 12, 13] },
  ...{ policy: at(0), base: at(far) },
});

describe("a probe", () => {
  it.each<[dtype: Probe["dtype"], far: number, shift: number, tellsApart: boolean]>([
    ["float32", 5e-4, 2e-6, true],
    // Another way to compute it, and a young adapter: which of the two is nearer says nothing.
    ["float32", 5e-5, 4e-5, false],
    ["bfloat16", 0.05, 0.04, false],
    ["bfloat16", 0, 0.03, false],
    ["bfloat16", 0.3, 0.1, true],
    // A logit of 16 to 32 is rounded by up to .06, and the hidden state that it comes of is as well.
    ["bfloat16", 0.15, 0.09, false],
  ])("in %s, the base %f away, believes an engine that differs by %f", async (...row) => {
    const [dtype, far, shift, tellsApart] = row;
    const found = await probeEngine(answering(at(shift)), { policy: "m@1" }, probeOf(dtype, far), {
      dtype,
    });
    expect(found).toEqual({ difference: expect.closeTo(shift, 7), tellsApart });
  });

  it.each<[dtype: Probe["dtype"], far: number, shift: number, why: RegExp]>([
    ["float32", 5e-4, 4e-4, /differ by 4\.0e-4, and at most 0\.001 .* of the base without/],
    ["float32", 0, 2e-3, /differ by 0\.002, .* other weights or another base/],
    ["bfloat16", 0.25, 0.19, /of the base without .*--probe-tolerance/],
    ["bfloat16", 0, 0.25, /differ by 0\.25, and at most 0\.2 /],
  ])("in %s, the base %f away, refuses an engine that differs by %f", async (...row) => {
    const [dtype, far, shift, why] = row;
    const asked = probeEngine(answering(at(shift)), { policy: "m@1" }, probeOf(dtype, far), {
      dtype,
    });
    await expect(asked).rejects.toMatchObject({
      code: "bad_adapter",
      message: expect.stringMatching(why),
    });
  });

  it("allows what the wider of two types does, and what the operator says", async () => {
    const ask = (shift: number, tolerance?: number) =>
      probeEngine(answering(at(shift)), { policy: "m@1" }, probeOf("bfloat16", 1), {
        ...{ dtype: "float32", tolerance },
      });
    expect(await ask(0.1)).toMatchObject({ tellsApart: true });
    await expect(ask(0.3)).rejects.toThrow("at most 0.2");
    expect(await ask(0.3, 0.4)).toMatchObject({ tellsApart: true });
    await expect(ask(0.1, 0.05)).rejects.toThrow("at most 0.05");
  });

  it("takes no engine for the base that differs by less than the operator allows, of a policy that does too", async () => {
    const limits = { dtype: "bfloat16", tolerance: 0.4 } as const;
    const found = await probeEngine(
      answering(at(0.3)),
      { policy: "m@1" },
      probeOf("bfloat16", 0.35),
      limits,
    );
    expect(found).toMatchObject({ tellsApart: false });
  });

  it("that is not answered in time is an error of an engine that is away, and says what to do", async () => {
    const over = AbortSignal.abort(new DOMException("too late", "TimeoutError"));
    const timeout = vi.spyOn(AbortSignal, "timeout").mockReturnValue(over);
    const hung: Engine = {
      ...answering(at(0)),
      // oxlint-disable-next-line require-yield
      async *generate({ signal }) {
        throw signal.reason;
      },
    };
    const asked = probeEngine(hung, { policy: "m@1" }, probeOf("float32", 1), { dtype: "float32" });
    await expect(asked).rejects.toMatchObject({
      ...{ code: "engine_unavailable", status: 503 },
      message: expect.stringContaining("Look at the engine's log"),
    });
    timeout.mockRestore();
  });

  it("of an engine that tells no number is an error of the engine", async () => {
    const silent = answering({ prompt: [-3, Number.NaN], next: -1 });
    await expect(
      probeEngine(silent, { policy: "m@1" }, probeOf("float32", 1), { dtype: "float32" }),
    ).rejects.toMatchObject({ code: "engine_error" });
  });
});
