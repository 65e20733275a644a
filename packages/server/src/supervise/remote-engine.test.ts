import { HoneError } from "@hone/core";
import { pino } from "pino";
import { afterEach, expect, it, vi } from "vitest";
import { watchRemoteEngine, type RemoteEngine } from "./remote-engine.ts";

const url = "http://127.0.0.1:9";
/** A limit for what hangs. */
const soon = { timeout: 60_000, interval: 5 };
let watcher: RemoteEngine;
afterEach(() => watcher.stop());

function watched(missing: () => Promise<string[]>, onReady: () => Promise<void>): RemoteEngine {
  const log = pino({ level: "silent" });
  watcher = watchRemoteEngine({ url, missing, onReady, log, pollMs: 10 });
  return watcher;
}

it("loads again what is missing, and takes no traffic meanwhile", async () => {
  let lost: string[] = [];
  let loads = 0;
  let release: () => void = () => undefined;
  watched(
    () => Promise.resolve(lost),
    async () => {
      if (loads++ > 0) await new Promise<void>((resolve) => (release = resolve));
      lost = [];
    },
  );
  expect(() => watcher.baseURL()).toThrow(expect.objectContaining({ code: "engine_unavailable" }));
  await watcher.start();
  expect(watcher.baseURL()).toBe(url);
  lost = ["m@3"];
  await vi.waitFor(() => expect(loads).toBe(2), soon);
  expect(() => watcher.baseURL()).toThrow(
    expect.objectContaining({ code: "engine_unavailable", retryAfterMs: expect.any(Number) }),
  );
  release();
  await vi.waitFor(() => expect(watcher.baseURL()).toBe(url), soon);
  expect(watcher.status()).toEqual({ state: "ready", restarts: 1 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(loads).toBe(2);
});

it("goes on trying while the engine is away or cannot load", async () => {
  let away = false;
  let failures = 2;
  watched(
    () =>
      away
        ? Promise.reject(new HoneError("away", { code: "engine_unavailable" }))
        : Promise.resolve([]),
    async () => {
      if (away || failures-- > 0) throw new HoneError("no", { code: "engine_error" });
    },
  );
  await expect(watcher.start()).rejects.toMatchObject({ code: "engine_error" });
  failures = 0;
  await watcher.start();
  away = true;
  await vi.waitFor(() => expect(watcher.status().state).toBe("unreachable"), soon);
  failures = 2;
  away = false;
  await vi.waitFor(() => expect(watcher.status().state).toBe("ready"), soon);
});
