import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, expect, it, vi } from "vitest";
import { silent } from "../../testing/fixtures.ts";
import { makeAdapter } from "../../testing/joinable-server.ts";
import { createEnginePool } from "../pool.ts";
import { createJoinedEngines } from "./joined-engines.ts";

afterEach(() => void vi.useRealTimers());

it("an engine has as long to fetch and load a policy as the operator lets a publication take", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "hone-joined-"));
  const pool = createEnginePool({
    ...{ replicas: [], restore: () => Promise.resolve(), log: silent },
    base: () => ({ name: "base", dtype: "float32" }),
  });
  const joined = createJoinedEngines({
    ...{ dataDir, pool: () => pool, closed: null, taken: [], log: silent },
    ...{ publishDeadlineMs: 120_000, base: () => Promise.reject() as never },
  });
  joined.add("a");
  const { driver } = joined.find("a");
  const adapter = makeAdapter(dataDir, "m@1");
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  let outcome: unknown = null;
  const loading = driver.load(adapter).catch((error: unknown) => (outcome = error));
  while (vi.getTimerCount() === 0) await turn();
  await vi.advanceTimersByTimeAsync(119_000);
  expect(outcome).toBeNull();
  await vi.advanceTimersByTimeAsync(2_000);
  await loading;
  expect(outcome).toMatchObject({ message: "The engine a did not load m@1 within 120 s." });
  vi.useRealTimers();
  await joined.stop();
  rmSync(dataDir, { recursive: true });
});
