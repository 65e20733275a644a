import { expect, it } from "vitest";
import type { Health } from "../../supervise/health.ts";
import { askWhileIdle } from "./idle-token.ts";

const everyMs = 10;

function watched() {
  const at = { ms: 0, baseURL: "http://a", phase: "idle" as Health["phase"], progress: 7 };
  const asked: { answer: (error?: Error) => void }[] = [];
  const look = askWhileIdle(
    async () => ({ phase: at.phase, progress: at.progress }),
    () =>
      new Promise<void>((resolve, reject) => {
        asked.push({ answer: (error) => (error ? reject(error) : resolve()) });
      }),
    { everyMs, now: () => at.ms },
  );
  /** Looks so much later; gives how often it has been asked by then. */
  const after = async (ms: number): Promise<number> => {
    at.ms += ms;
    await look({ baseURL: at.baseURL });
    return asked.length;
  };
  return { at, asked, after };
}

it("asks one that has done no step for some time, and not again before it has answered", async () => {
  const { asked, after } = watched();
  expect([await after(0), await after(everyMs - 1), await after(1)]).toEqual([0, 0, 1]);
  expect(await after(5 * everyMs)).toBe(1);
  asked[0]!.answer(new Error("it went away"));
  await Promise.resolve();
  await new Promise(setImmediate);
  expect(await after(1)).toBe(2);
});

it("asks nothing of one that has requests, that has just done a step, or that is another process", async () => {
  const { at, after } = watched();
  await after(0);
  at.phase = "decoding";
  expect(await after(2 * everyMs)).toBe(0);
  at.phase = "idle";
  expect(await after(everyMs - 1)).toBe(0);
  at.progress++;
  expect(await after(1)).toBe(0);
  expect(await after(everyMs - 1)).toBe(0);
  at.baseURL = "http://b";
  expect(await after(1)).toBe(0);
  expect(await after(everyMs)).toBe(1);
});
