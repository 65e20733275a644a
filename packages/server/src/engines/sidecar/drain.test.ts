import { HoneError } from "@hone/core";
import { pino } from "pino";
import { expect, it } from "vitest";
import { drain } from "./drain.ts";

const log = pino({ level: "silent" });

function draining(answer: (nth: number) => Promise<{ inFlight: number }>) {
  let asked = 0;
  return { link: { drain: () => answer(asked++) }, asked: () => asked };
}

it("a server that has removed the engine is asked once, and what runs here finishes", async () => {
  const { link, asked } = draining(async () => {
    throw new HoneError("no such key", { code: "invalid_api_key" });
  });
  const proxy = { inFlight: 1 };
  const drained = drain({ ...{ link, proxy, boot: "b", limitMs: 10_000, log } });
  setTimeout(() => void (proxy.inFlight = 0), 1_300);
  const begun = performance.now();
  await drained;
  expect(performance.now() - begun).toBeGreaterThan(1_200);
  expect(asked()).toBe(1);
});

it("while requests run the server is told once a second; then it says whether one is on its way", async () => {
  const proxy = { inFlight: 1 };
  const { link, asked } = draining(async (nth) => {
    if (nth === 1) setTimeout(() => void (proxy.inFlight = 0), 450);
    return { inFlight: nth < 3 ? 1 : 0 };
  });
  await drain({ ...{ link, proxy, boot: "b", limitMs: 10_000, log } });
  // At its beginning, after a second, and when nothing ran here any more: that time one was still on its way.
  expect(asked()).toBe(4);
});

it("a server that is away is told again when it is back; the limit ends the waiting", async () => {
  const { link, asked } = draining(async () => {
    throw new HoneError("away", { code: "connection_failed" });
  });
  await drain({ ...{ link, proxy: { inFlight: 1 }, boot: "b", limitMs: 1_200, log } });
  expect(asked()).toBe(2);
});
