// A run whose real server is killed (SIGKILL) while a batch is played and while a step trains, and is started again
// each time, as a supervisor does.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hone } from "@hone/client";
import { defineTask, trainRun } from "@hone/client/run";
import OpenAI from "openai";
import { afterEach, beforeEach, expect, it, onTestFinished, vi } from "vitest";
import { check } from "../faults/checker.ts";
import { freePort, startServerProcess, type ServerProcess } from "../faults/server-process.ts";

let folder: string;
let server: ServerProcess;
let starting: Promise<void> = Promise.resolve();
let place: { dataDir: string; port: number; mark: string };
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hone-server-killed-"));
  const mark = `server-killed-${process.pid}-${Date.now()}`;
  place = { dataDir: join(folder, "data"), port: await freePort(), mark };
  server = await startServerProcess(place);
});
afterEach(async () => {
  await starting.catch(() => undefined);
  await server.stop();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

function killAndStartAgain(): void {
  process.kill(server.pid, "SIGKILL");
  starting = server.ended.then(async () => {
    server = await startServerProcess(place);
  });
}

it("goes on when it is back: what was cut off is played again, and counts once", async () => {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  const played: number[] = [];
  const task = defineTask({
    train: [{ n: 1 }],
    heldOut: [{ n: -1 }, { n: -2 }],
    async rollout(model, { n }: { n: number }, { seed }) {
      played.push(n);
      const { model: name, ...connection } = model.connection();
      const asked = new OpenAI({ ...connection, maxRetries: 0 }).chat.completions.create({
        ...{ model: name, max_tokens: 16, temperature: 1, seed: seed ?? null },
        messages: [{ role: "user", content: `${n}` }],
      });
      // After the base's two answers: the second rollout of the batch.
      if (played.length === 4) killAndStartAgain();
      await asked;
      return { reward: played.length % 2, metrics: { cost_usd: 1 } };
    },
    options: {
      ...{ steps: 1, groupsPerStep: 1, groupSize: 4, concurrency: 1, verdict: "sampled" },
      learningRate: 1e-5,
    },
  });
  const hone = new Hone({ baseURL: server.url, apiKey: server.key });
  const summary = await trainRun(task, {
    ...{ name: "killed", out: join(folder, "run"), ungated: true, hone },
    onEvent(event) {
      if (event.type === "began" && event.label.endsWith("training")) killAndStartAgain();
    },
  });
  await starting;

  expect(summary).toMatchObject({ trained: 1, starts: 1, usd: 8 });
  expect(played.filter((n) => n > 0)).toHaveLength(5);
  const told = emit.mock.calls.map(([message]) => String(message));
  expect(told.filter((one) => one.includes("does not answer")).length).toBeGreaterThan(1);
  await server.stop();
  expect(await check({ ...place, model: "killed", step: 1 })).toEqual([]);
});
