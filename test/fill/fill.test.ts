import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readGroups, type BatchCursor, type CurriculumShares } from "@hone/client";
import { defineTask, trainRun, type RunEvent } from "@hone/client/run";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openDatabase } from "../faults/database.ts";
import { worthOf } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-fill-"));
  server = await startTestServer();
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

/** Every second scenario is hopeless; of the others the reward is another in nearly every rollout. */
const scenarios = Array.from({ length: 8 }, (_, n) => ({ n, hopeless: n % 2 === 0 }));

const task = defineTask({
  train: scenarios,
  heldOut: [
    { n: -1, hopeless: false },
    { n: -2, hopeless: false },
  ],
  shuffle: false,
  async rollout(model, { n, hopeless }, { temperature, answerTokens, seed }) {
    const connection = model.connection();
    const completion = await new OpenAI(connection).chat.completions.create(
      {
        // Seeded: four equal answers would be a group that does not train.
        ...{ model: connection.model, temperature, max_tokens: answerTokens, seed: seed ?? null },
        messages: [{ role: "user", content: `Say the number ${n}.` }],
      },
      { signal: model.signal },
    );
    const answer = completion.choices[0]?.message.content ?? "";
    return hopeless ? 0 : worthOf(answer);
  },
  options: {
    ...{ groupsPerStep: 2, groupSize: 4, answerTokens: 12, verdict: "sampled" },
    train: { maxTokensPerMicroBatch: 2048 },
  },
});

/** Runs the task, or stops it when `stopAt` says so of an event. */
async function run(
  name: string,
  given: object,
  stopAt: (event: RunEvent) => boolean = () => false,
) {
  const stop = new AbortController();
  const steps: Extract<RunEvent, { type: "step-ended" }>[] = [];
  const summary = trainRun(task, {
    ...{ name, out: join(folder, name), hone: server.hone, ungated: true, signal: stop.signal },
    ...given,
    onEvent(event) {
      if (event.type === "step-ended") steps.push(event);
      if (stopAt(event)) stop.abort(new Error("stopped by the test"));
    },
  });
  return {
    steps,
    error: await summary.then(
      () => null,
      (error: unknown) => error as Error,
    ),
  };
}

/** The scenarios of each batch in the order in which they were drawn, as the run's folder keeps them. */
async function drawnIn(name: string, batches: number): Promise<number[][]> {
  const files = Array.from({ length: batches }, (_, at) => `step-000${at + 1}.jsonl`);
  const groups = await Promise.all(
    files.map((file) => readGroups(join(folder, name, "trajectories", file))),
  );
  return groups.map((batch) => batch.map(({ scenario }) => (scenario as { n: number }).n));
}

const cursorOf = async (name: string) =>
  (await (await server.hone.model({ name })).info()).cursor as BatchCursor;

it("a filled run that is stopped while it fills goes on in its order, and trains nothing twice", async () => {
  const options = { steps: 3, fill: { maxFactor: 2 } };
  const filling = (event: RunEvent) => event.type === "began" && event.label === "step 2/3 filling";
  const first = await run("filled", options, filling);
  expect(first.error).toMatchObject({ code: "aborted" });
  expect(first.steps).toHaveLength(1);
  const second = await run("filled", options);
  expect(second.error).toBeNull();

  const records = [...first.steps, ...second.steps].map(({ record }) => record);
  // 0 (hopeless) and 1; 2 for 0 and 3 for 2. Then the same from 4 on, and a new epoch.
  expect(await drawnIn("filled", 3)).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [0, 1, 2, 3],
  ]);
  for (const { fill, reasons, variance } of records) {
    expect(fill).toEqual({ wanted: 2, drawn: 4, equal: 2, kept: 2, missing: 0 });
    expect(reasons).toEqual({ zero_variance: 2 });
    expect(variance).toEqual({ groups: 2, of: 4 });
  }
  expect(await cursorOf("filled")).toMatchObject({ step: 3, trained: 3, epoch: 1, position: 4 });

  // The groups that differ, each of its rollouts once.
  const database = openDatabase(server.dataDir);
  const trained = database
    .prepare("SELECT count(*) AS n FROM rollouts WHERE model = 'filled' AND trained_by IS NOT NULL")
    .all();
  database.close();
  expect(trained).toEqual([{ n: 3 * 2 * 4 }]);
});

it("a curriculum draws what differs; its state is the server's cursor, and the same after a stop", async () => {
  const options = { steps: 8, curriculum: { floor: 0.1 }, fill: { maxFactor: 1.5 } };
  const first = await run(
    "taught",
    options,
    (event) => event.type === "step-ended" && event.step === 5,
  );
  expect(first.error).toMatchObject({ code: "aborted" });
  const before = (await cursorOf("taught")).curriculum;
  expect(before?.rates).toMatch(/^(0[1-9A-Za-z]){4}$/);
  const second = await run("taught", options);
  expect(second.error).toBeNull();
  const batches = await drawnIn("taught", 8);
  // Each once, in the order of the list; what the folder tells of is what the cursor has counted.
  const all = batches.flat();
  expect(all.slice(0, 8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  const { curriculum, position } = await cursorOf("taught");
  expect([position, curriculum?.drawn]).toEqual([8, all.length - 8]);
  const hopeless = all.slice(8).filter((n) => n % 2 === 0).length;
  expect(hopeless / (all.length - 8)).toBeLessThan(0.35);
  const shares = second.steps.map(({ record }) => record.curriculum as CurriculumShares);
  expect(shares.at(-1)?.all).toEqual({ unseen: 0, never: 4, sometimes: 4, always: 0 });
});
