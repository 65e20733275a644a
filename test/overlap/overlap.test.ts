import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gather, type Model, playAhead, readGroups, type TrajectoryGroup } from "@hone/client";
import { defineTask, trainRun, type RunEvent } from "@hone/client/run";
import type { RolloutModel } from "@hone/client";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openDatabase } from "../faults/database.ts";
import { worthOf } from "../support/letters.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hone-overlap-"));
  server = await startTestServer();
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

interface Scenario {
  n: number;
}
const scenarios = Array.from({ length: 8 }, (_, n): Scenario => ({ n }));

async function rollout(model: RolloutModel, { n }: Scenario) {
  const connection = model.connection();
  const completion = await new OpenAI(connection).chat.completions.create(
    {
      ...{ model: connection.model, max_tokens: 12 },
      messages: [{ role: "user", content: `Say the number ${n}.` }],
    },
    { signal: model.signal },
  );
  const answer = completion.choices[0]?.message.content ?? "";
  // Four equal answers would be a group that does not train.
  return worthOf(answer) + Math.random() / 97;
}

const task = defineTask({
  train: scenarios,
  heldOut: [{ n: -1 }, { n: -2 }],
  shuffle: false,
  rollout,
  options: {
    ...{ groupsPerStep: 2, groupSize: 4, answerTokens: 12, verdict: "sampled", overlap: true },
    train: { maxTokensPerMicroBatch: 2048, maxStaleness: 1 },
  },
});

async function run(
  name: string,
  given: object,
  stopAt: (event: RunEvent) => boolean = () => false,
) {
  const stop = new AbortController();
  const steps: Extract<RunEvent, { type: "step-ended" }>[] = [];
  const error = await trainRun(task, {
    ...{ name, out: join(folder, name), hone: server.hone, ungated: true, signal: stop.signal },
    ...given,
    onEvent(event) {
      if (event.type === "step-ended") steps.push(event);
      if (stopAt(event)) stop.abort(new Error("stopped by the test"));
    },
  }).then(
    () => null,
    (failure: unknown) => failure as Error,
  );
  return { steps, error };
}

async function groupsOf(name: string, step: number): Promise<TrajectoryGroup[]> {
  const file = `step-${String(step).padStart(4, "0")}.jsonl`;
  return await readGroups(join(folder, name, "trajectories", file));
}

const scenariosOf = (groups: readonly TrajectoryGroup[]) =>
  groups.map(({ scenario }) => (scenario as Scenario).n);
const policiesOf = (groups: readonly TrajectoryGroup[]) => [
  ...new Set(groups.flatMap(({ trajectories }) => trajectories.map(({ policy }) => policy))),
];

function rolloutsOf(model: string, where: string): number {
  const database = openDatabase(server.dataDir);
  const sql = `SELECT count(*) AS n FROM rollouts WHERE model = '${model}' AND ${where}`;
  const [row] = database.prepare(sql).all() as { n: number }[];
  database.close();
  return row?.n ?? -1;
}

it("a run that is stopped with a batch in flight goes on with the same scenarios, in order, within the bound", async () => {
  const options = { steps: 5, evalEvery: 2, evalHeldOut: 2 };
  const first = await run(
    "ahead",
    options,
    (event) => event.type === "step-ended" && event.step === 2,
  );
  expect(first.error).toMatchObject({ code: "aborted" });
  // Whatever was in flight was closed.
  expect(rolloutsOf("ahead", "status = 'open'")).toBe(0);
  expect(rolloutsOf("ahead", "trained_by IS NOT NULL")).toBe(2 * 2 * 4);
  const second = await run("ahead", options);
  expect(second.error).toBeNull();

  const records = [...first.steps, ...second.steps].map(({ record }) => record);
  expect(records.map(({ policy }) => policy)).toEqual([1, 2, 3, 4, 5].map((n) => `ahead@${n}`));
  const all = await Promise.all(records.map(({ step }) => groupsOf("ahead", step)));
  expect(all.map(scenariosOf)).toEqual([
    [0, 1],
    [2, 3],
    [4, 5],
    [6, 7],
    [0, 1],
  ]);
  // Step N + 1 is made of rollouts of policy N, or of the one before it, those that the first start left included.
  for (const [at, groups] of all.entries()) {
    const own = [`ahead@${at}`, `ahead@${at - 1}`];
    expect(own).toEqual(expect.arrayContaining(policiesOf(groups)));
    expect(records[at]?.overlap?.staleness?.max).toBeLessThanOrEqual(at === 0 ? 0 : 1);
    expect(records[at]?.overlap?.resampled).toBe(0);
  }
  expect(Math.max(...records.map(({ overlap }) => overlap?.staleness?.max ?? 0))).toBe(1);
  expect(rolloutsOf("ahead", "trained_by IS NOT NULL")).toBe(5 * 2 * 4);
  // On the way the policy that was just trained answered, and no other.
  const onTheWay = join(folder, "ahead", "trajectories", "eval-step-4.jsonl");
  expect(policiesOf(await readGroups(onTheWay))).toEqual(["ahead@4"]);
});

it("what another program makes stale is played again, before its step or with the next batch", async () => {
  const model = await server.hone.model({ name: "shared" });
  const other = await server.hone.model({ name: "shared" });
  const plan = { groupsPerStep: 2, steps: 4, shuffle: false };
  const play = (given: readonly Scenario[], { signal }: { signal: AbortSignal }) =>
    gather(model, rollout, given, { groupSize: 4, signal });
  const seen: { scenarios: number[]; resampled: number; reasons: object }[] = [];
  for await (const { batch, groups, overlap } of playAhead(
    model,
    model.batches(scenarios, plan),
    play,
    { maxStaleness: 1 },
  )) {
    expect(overlap.staleness?.max).toBeLessThanOrEqual(1);
    // After this batch was given, and with the rollouts of the next one behind it: only the server can know.
    if (seen.length === 2) {
      await played(5);
      await stepsOf(other, 2);
    }
    const result = await model.train(groups, {
      ...{ batch, maxStaleness: 1, maxTokensPerMicroBatch: 2048 },
    });
    const { resampled } = overlap;
    seen.push({ scenarios: scenariosOf(groups), resampled, reasons: result.reasons });
    // While the next one has been played: its rollouts get too old.
    if (seen.length === 1) {
      await played(2);
      await stepsOf(other, 2);
    }
  }
  async function played(batches: number) {
    while (rolloutsOf("shared", "status = 'finished'") < batches * 2 * 4) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  expect(seen).toEqual([
    { scenarios: [0, 1], resampled: 0, reasons: {} },
    { scenarios: [2, 3], resampled: 8, reasons: {} },
    { scenarios: [4, 5], resampled: 0, reasons: { stale: 2 } },
    // Batch 3 was dealt out before the step of batch 2 had trained nothing; its rollouts were too old as well.
    { scenarios: [4, 5, 6, 7], resampled: 16, reasons: {} },
    { scenarios: [0, 1], resampled: 0, reasons: {} },
  ]);
  expect((await model.info()).cursor).toMatchObject({ step: 5, trained: 4 });
});

/** Steps that another program trains on the same model. */
async function stepsOf(model: Model, count: number): Promise<void> {
  for (let step = 0; step < count; step++) {
    const tokens = [5, 6, 7, 8];
    await model.forwardBackward([{ tokens, targets: [6, 7, 8, 9] }]);
    await model.optimStep({ learningRate: 1e-5 });
  }
}
