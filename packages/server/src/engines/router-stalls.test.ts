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
