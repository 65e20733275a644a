import { expect, it } from "vitest";
import { shareMetrics } from "./metrics-page.ts";

const url = "http://127.0.0.1:1";

/** Readings that the test ends, by a clock that it sets. */
function scripted() {
  const readings: { end: (page: string) => void; fail: (error: Error) => void }[] = [];
  const clock = { now: 0 };
  const page = shareMetrics({
    read: () => new Promise((end, fail) => void readings.push({ end, fail })),
    freshMs: 900,
    now: () => clock.now,
  });
  return { page, readings, clock };
}

it("several readers within a second share one reading, however long it takes", async () => {
  const { page, readings, clock } = scripted();
  const first = page(url);
  clock.now = 3_000;
  const second = page(url);
  readings[0]!.end("a");
  expect(await Promise.all([first, second])).toEqual(["a", "a"]);
  clock.now = 3_800;
  expect(await page(url)).toBe("a");
  expect(readings).toHaveLength(1);
  clock.now = 4_000;
  const later = page(url);
  readings[1]!.end("b");
  expect(await later).toBe("b");
});

it("a reading that failed, or of a process before, is not shared with who comes later", async () => {
  const { page, readings } = scripted();
  const first = page(url);
  readings[0]!.fail(new Error("gone"));
  await expect(first).rejects.toThrow("gone");
  const second = page(url);
  readings[1]!.end("b");
  expect(await second).toBe("b");
  const other = page("http://127.0.0.1:2");
  readings[2]!.end("c");
  expect(await other).toBe("c");
  expect(readings).toHaveLength(3);
});
