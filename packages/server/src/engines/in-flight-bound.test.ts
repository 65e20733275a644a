import { expect, it } from "vitest";
import { createInFlightBound } from "./in-flight-bound.ts";

const idle = { waiting: 0, preemptions: 0 };
const busy = { inFlight: 64, wanted: true, preempted: false };

it("begins with what the engine batches, and grows while there is room and demand", () => {
  const bound = createInFlightBound(64);
  expect(bound.value).toBe(64);
  bound.read({ ...idle, kvUse: 0.59 }, busy);
  expect(bound.value).toBe(66);
  bound.read({ ...idle, kvUse: 0.59 }, { ...busy, wanted: false });
  bound.read({ ...idle, kvUse: 0.7 }, busy);
  // More would only stand in the engine's own queue.
  bound.read({ ...idle, kvUse: 0.1, waiting: 3 }, busy);
  expect(bound.value).toBe(66);
  for (let i = 0; i < 1000; i++) bound.read({ ...idle, kvUse: 0 }, busy);
  expect(bound.value).toBe(256);
});

it("is trimmed by what is in flight, at once, and not to nothing", () => {
  const bound = createInFlightBound(256);
  bound.read({ ...idle, kvUse: 0.81 }, { ...busy, inFlight: 100 });
  expect(bound.value).toBe(80);
  bound.read({ ...idle, kvUse: 0.7 }, { ...busy, preempted: true });
  expect(bound.value).toBe(51);
  for (let i = 0; i < 100; i++) bound.read({ ...idle, kvUse: 1 }, { ...busy, inFlight: 3 });
  expect(bound.value).toBe(8);
  const small = createInFlightBound(4);
  small.read({ ...idle, kvUse: 1 }, { ...busy, inFlight: 0 });
  expect(small.value).toBe(4);
});
