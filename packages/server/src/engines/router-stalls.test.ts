import { HoneError } from "@hone/core";
import { pino } from "pino";
import { beforeEach, describe, expect, it } from "vitest";
import { sampleOne } from "../testing/sampling.ts";
import { createTestEngine, type TestEngine } from "../testing/test-engine.ts";
import type { Route } from "./placement.ts";
import { createEngineRouter, type EngineRouter } from "./router.ts";

let a: TestEngine;
let b: TestEngine;
let shut: { a: Route["shut"]; b: Route["shut"] };
let now: number;
let distrusted: string[];
let router: EngineRouter;
beforeEach(() => {
  [a, b] = [createTestEngine("a"), createTestEngine("b")];
  shut = { a: null, b: null };
  now = 0;
  distrusted = [];
  router = createEngineRouter({
    routes: () => [
      { name: "a", engine: a, shut: shut.a },
      { name: "b", engine: b, shut: shut.b },
    ],
    noneOpen: () => new HoneError("nobody is there", { code: "engine_unavailable" }),
    now: () => now,
    distrust: (name, why) => void distrusted.push(`${name}: ${why}`),
    log: pino({ level: "silent" }),
  });
});

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const figures = (name: string) => router.figures().find((one) => one.name === name)!;
const request = {
  ...{ model: "m@1", prompt: [1], n: 1, maxTokens: 2, temperature: 1, topP: 1 },
  ...{ seed: null, stop: [], stopTokenIds: [], stream: true },
};
const ask = () => sampleOne(router, { model: "m@1", prompt: [1] });

describe("an engine that stands still over a request", () => {
  const at = async (ms: number): Promise<void> => {
    now = ms;
    await router.tick();
  };

  it("is not trusted after 90 s, and what it was sampling breaks off", async () => {
    shut.b = "fenced";
    a.steps = 7;
    await at(0);
    await at(200_000);
    const answer = ask();
    await settled();
    await at(289_000);
    expect(distrusted).toEqual([]);
    // Its HTTP server may be gone as well.
    a.kv = null;
    await at(290_000);
    expect(distrusted).toEqual(["a: It has made no progress for 90 s, with 1 under way."]);
    await expect(answer).rejects.toMatchObject({ code: "engine_error" });
    expect(figures("a").inFlight).toBe(0);
    await at(400_000);
    expect(distrusted).toHaveLength(1);
  });

  it("is found although each request gives up before that", async () => {
    shut.b = "fenced";
    a.steps = 7;
    await at(0);
    for (let nth = 0; nth < 3; nth++) {
      const leave = new AbortController();
      const answer = sampleOne(router, { model: "m@1", prompt: [1], signal: leave.signal });
      await settled();
      await at(now + 29_000);
      leave.abort(new Error("it takes too long"));
      await expect(answer).rejects.toThrow("it takes too long");
      // Nothing is asked for a while, which is no step either.
      await at(now + 1_000);
      expect(distrusted).toEqual([]);
    }
    const last = ask();
    await settled();
    await at(now + 3_000);
    await expect(last).rejects.toMatchObject({ code: "engine_error" });
    expect(distrusted).toEqual(["a: It has made no progress for 90 s, with 1 under way."]);
  });

  it("is not blamed for a reader that does not read what has come", async () => {
    shut.b = "fenced";
    a.steps = 7;
    await at(0);
    const signal = new AbortController().signal;
    const slow = router.generate({ ...request, signal })[Symbol.asyncIterator]();
    const first = slow.next();
    await settled();
    a.say();
    expect(await first).toMatchObject({ done: false });
    await at(500_000);
    expect(distrusted).toEqual([]);
    // Once it wants more, the engine has its time.
    const second = slow.next();
    await settled();
    await at(589_000);
    expect(distrusted).toEqual([]);
    a.finish();
    expect(await second).toMatchObject({ value: { finishReason: "stop" } });
    expect(await slow.next()).toMatchObject({ done: true });
    await at(700_000);
    expect(distrusted).toEqual([]);
  });

  it("that is fenced and tells of no steps has 90 s from there, and from its last token", async () => {
    shut.b = "fenced";
    await at(0);
    const answers = [ask(), ask()];
    await settled();
    await at(200_000);
    shut.a = "fenced";
    router.changed();
    await at(201_000);
    await at(280_000);
    a.finish();
    await answers[0];
    await at(369_000);
    answers[1]!.catch(() => undefined);
    expect(figures("a").inFlight).toBe(1);
    await at(371_000);
    await expect(answers[1]).rejects.toMatchObject({ code: "engine_error" });
    expect(figures("a").inFlight).toBe(0);
    expect(distrusted).toEqual([]);
  });

  it("that was made ready again meanwhile has all the time it takes", async () => {
    shut.b = "fenced";
    await at(0);
    const answer = ask();
    await settled();
    for (let ms = 0; ms < 400_000; ms += 80_000) {
      shut.a = "fenced";
      await at(ms + 1_000);
      await at(ms + 79_000);
      shut.a = null;
      await at(ms + 80_000);
    }
    a.finish();
    expect((await answer).text).toBe("a");
  });

  it("breaks off what it was sampling also where it is fenced by then, and may finish it before", async () => {
    shut.b = "fenced";
    a.steps = 7;
    await at(0);
    const [quick, answer] = [ask(), ask()];
    await settled();
    shut.a = "fenced";
    router.changed();
    await at(89_000);
    a.finish();
    expect((await quick).text).toBe("a");
    answer.catch(() => undefined);
    // A token is a sign of life: 90 s after it.
    await at(179_000);
    await expect(answer).rejects.toMatchObject({ code: "engine_error" });
    expect(figures("a").inFlight).toBe(0);
    expect(distrusted).toEqual([]);
  });

  it("is trusted while answers come from it, also where its metrics cannot be read for long", async () => {
    shut.b = "fenced";
    a.steps = 7;
    await at(0);
    const answers = Array.from({ length: 6 }, () => ask());
    await settled();
    a.kv = null;
    for (let ms = 40_000; ms <= 200_000; ms += 40_000) {
      a.finish();
      await settled();
      await at(ms);
    }
    expect(distrusted).toEqual([]);
    a.finish();
    await Promise.all(answers);
  });

  it("is trusted while its steps go on, or where it does not tell of them", async () => {
    shut.b = "fenced";
    a.steps = 7;
    await at(0);
    const answer = ask();
    await settled();
    for (let ms = 60_000; ms <= 300_000; ms += 60_000) {
      a.steps++;
      await at(ms);
    }
    a.finish();
    await answer;
    [shut.a, shut.b] = ["fenced", null];
    const other = ask();
    await settled();
    await at(900_000);
    b.finish();
    await other;
    expect(distrusted).toEqual([]);
  });
});
