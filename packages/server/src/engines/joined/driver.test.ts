import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, expect, it } from "vitest";
import { adapterName } from "../../ports/live-set.ts";
import { makeAdapter } from "../../testing/joinable-server.ts";
import { createJoinedDriver } from "./driver.ts";

const folder = mkdtempSync(join(tmpdir(), "hone-joined-driver-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("waits for an engine as long as its weights are on the way there", async () => {
  const deadlineMs = 2_000;
  const driver = createJoinedDriver({ name: "far", deadlineMs });
  const adapter = makeAdapter(folder, "m@1");
  // Twelve parts, each of which takes an eighth of the deadline.
  const weights = new Uint8Array(12 * 64 * 1024);
  writeFileSync(join(adapter.path, adapterName), weights);
  const began = performance.now();
  const load = driver.load(adapter);
  await expect.poll(() => driver.fileOf(adapter.sha256)).not.toBeNull();
  const { asked } = driver.wanted()[0]!;
  let sent = 0;
  for await (const part of driver.send(adapter.sha256)) {
    sent += part.byteLength;
    await delay(deadlineMs / 8);
  }
  expect(sent).toBe(weights.byteLength);
  expect(performance.now() - began).toBeGreaterThan(1.4 * deadlineMs);
  const served = [{ policy: "m@1", sha256: adapter.sha256, asked, answer: null }];
  driver.heard({ boot: "b", generation: asked, ready: true, served, refused: [] });
  await load;
  await driver.close();
});

it("gives up on one to which nothing goes any more", async () => {
  const driver = createJoinedDriver({ name: "far", deadlineMs: 300 });
  await expect(driver.load(makeAdapter(folder, "m@2"))).rejects.toMatchObject({
    ...{ code: "engine_unavailable", message: expect.stringContaining("did not load m@2") },
  });
  await driver.close();
});

it("waits for no report once it is closed", async () => {
  const driver = createJoinedDriver({ name: "far", deadlineMs: 60_000 });
  const load = driver.load(makeAdapter(folder, "m@3"));
  await expect.poll(() => driver.wanted()).toHaveLength(1);
  const gone = { code: "engine_unavailable", message: expect.stringContaining("was removed") };
  await Promise.all([expect(load).rejects.toMatchObject(gone), driver.close()]);
  await expect(driver.load(makeAdapter(folder, "m@4"))).rejects.toMatchObject(gone);
});
