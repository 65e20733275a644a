import { HoneError } from "@hone/core";
import { expect, vi } from "vitest";
import { test } from "../testing/state-test.ts";

test("a publication for which the only engine was late is tried again, though that did not start anew", async ({
  engine,
  server,
}) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    engine.failNext = new HoneError("It did not load m@1 in 30 s.", { code: "engine_unavailable" });
    const id = await server.submitStep();
    // Files are read and written in real time, and only the wait is shortened.
    const until = async (isSo: () => Promise<boolean> | boolean): Promise<void> => {
      const began = performance.now();
      while (!(await isSo())) {
        if (performance.now() - began > 20_000) throw new Error("it did not come to that");
        await new Promise((next) => setImmediate(next));
      }
    };
    await until(async () => {
      await vi.advanceTimersByTimeAsync(100);
      return (await server.call("GET", `/v1/operations/${id}`)).json.status === "succeeded";
    });
    expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
  } finally {
    vi.useRealTimers();
  }
});
