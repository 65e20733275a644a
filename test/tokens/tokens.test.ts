import { join } from "node:path";
import { readGroups, type TrajectoryGroup } from "@hone/client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { trainRun, type RunEvent } from "@hone/client/run";
import task from "../../examples/2048/src/task.ts";
import { expectSameLogprobs } from "../support/sampler-difference.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { expectTrainedWereSampled, recordWire, type Wire } from "../support/wire.ts";

const steps = 3;

/** The quickstart's run, smaller: the same agent, the same options of training. */
describe("a run of the 2048 agent", () => {
  let server: TestServer;
  let wire: Wire;
  beforeAll(async () => {
    server = await startTestServer();
    wire = recordWire();
  });
  afterAll(async () => {
    wire?.close();
    await server?.close();
  });

  it("trains the ids that were sampled, each once, with the sampler's logprobs", async () => {
    const out = join(server.dataDir, "run");
    const reports: Extract<RunEvent, { type: "step-ended" }>[] = [];
    await trainRun(task, {
      ...{ name: "2048", out, hone: server.hone, concurrency: 16, ungated: true },
      ...{ steps, groupsPerStep: 2, groupSize: 4, evalEvery: 0, heldOut: 2 },
      schedule: { type: "constant" },
      onEvent: (event) => {
        if (event.type === "step-ended") reports.push(event);
      },
    });

    const batches = wire.batches();
    const sampled = wire.sampled();
    expect(batches).toHaveLength(steps);
    const left = expectTrainedWereSampled(batches, sampled);

    // The other direction: what was played is what was trained, but for groups with nothing to compare.
    const file = (name: string): Promise<TrajectoryGroup[]> =>
      readGroups(join(out, "trajectories", `${name}.jsonl`));
    let untrained = tokensOf([...(await file("eval-base")), ...(await file("eval-trained"))]);
    for (const [index, { result, record }] of reports.entries()) {
      expect(record.failed).toBe(0);
      expect(result.trained).toBe(true);
      const groups = await file(`step-${String(index + 1).padStart(4, "0")}`);
      const dropped = new Set(result.groups.filter((g) => g.reason !== null).map((g) => g.id));
      const trained = groups.filter((group) => !dropped.has(group.id));
      untrained += tokensOf(groups.filter((group) => dropped.has(group.id)));
      const batch = batches[index] ?? [];
      // Whole games: a conversation of many turns, not one answer.
      expect(batch.length).toBeGreaterThan(4 * 5);
      expect(batch.every(({ policy }) => policy === index)).toBe(true);
      expect(tokens(batch)).toBe(tokensOf(trained));
      expect(result.metrics["train_tokens"]).toBe(tokens(batch));
    }
    expect(tokens(left)).toBe(untrained);
    for (const { result } of reports) expectSameLogprobs(result);
  });
});

function tokens(completions: readonly { ids: readonly number[] }[]): number {
  return completions.reduce((sum, { ids }) => sum + ids.length, 0);
}

function tokensOf(groups: readonly TrajectoryGroup[]): number {
  return groups
    .flatMap((group) => group.trajectories)
    .reduce((sum, { usage }) => sum + usage.completionTokens, 0);
}
