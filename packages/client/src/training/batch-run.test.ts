import type { OperationEvent, TrajectoryGroup, TrainResult } from "@hone/core";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import type { Batch, BatchesOptions } from "./batch.ts";
import type { Model } from "../model.ts";
import { modelInfo, operation, send, startRouteServer } from "../testing/route-server.ts";
import type { RouteServer } from "../testing/route-server.ts";

type Step = Pick<TrainResult, "trained" | "reasons"> & { by?: string };

let server: RouteServer;
afterEach(() => server.close());

/** A server that keeps the model's step and cursor, and trains as it is told: one entry for each step. */
async function programOn(
  state: { learnt: number; cursor: unknown; rates?: number[] },
  steps: Step[],
) {
  const results = new Map<string, TrainResult>();
  server = await startRouteServer([
    [
      "(PUT /v1/models/m|GET /v1/models/m/state)",
      (_, response) => send(response, { ...modelInfo(state.cursor), learnt: state.learnt }),
    ],
    [
      "POST /v1/models/m/operations",
      ({ body }, response) => {
        const { trained, reasons } = steps.shift() ?? { trained: true, reasons: {} };
        if (trained) state.learnt += 1;
        state.rates?.push(body.op.config.learningRate);
        state.cursor = trained ? body.op.cursor : body.op.untrainedCursor;
        const id = `op_${results.size}`;
        const made = operation("succeeded", trained).result as TrainResult;
        results.set(id, { ...made, reasons, step: state.learnt, policy: `m@${state.learnt}` });
        send(response, { ...operation("queued"), id }, 202);
      },
    ],
    [
      "GET /v1/operations/op_\\d+/events",
      ({ path }, response) => {
        const id = path.split("/")[3] as string;
        const ended = { ...operation("succeeded"), id, result: results.get(id) ?? null };
        const event = { type: "ended", seq: 1, at: 1, operation: ended } as OperationEvent;
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end(`id: 1\ndata: ${JSON.stringify(event)}\n\n`);
      },
    ],
  ]);
  return async () => await server.hone().model({ name: "m" });
}

const group: TrajectoryGroup = {
  id: "grp_1",
  trajectories: [],
  exceptions: [],
  metadata: {},
  metrics: {},
  logs: [],
};
const trained: Step = { trained: true, reasons: {} };
const outage: Step = { trained: false, reasons: { judge_failed: 4 } };
const equal: Step = { trained: false, reasons: { zero_variance: 4 } };
const plan = { groupsPerStep: 1, steps: 4, shuffle: false };

async function runLoop(model: Model, options: Partial<BatchesOptions> = {}) {
  const seen: Batch<string>[] = [];
  for await (const batch of model.batches(["a", "b", "c"], { ...plan, ...options })) {
    seen.push(batch);
    await model.train([group], { batch });
  }
  return seen;
}

function warnings() {
  const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => emit.mockRestore());
  return () => emit.mock.calls.map(([message]) => String(message));
}

describe("batches that train nothing", () => {
  it("use up their scenarios and none of the steps", async () => {
    const program = await programOn({ learnt: 0, cursor: null }, [trained, outage, equal]);
    const seen = await runLoop(await program());
    expect(seen.map((batch) => batch.scenarios[0])).toEqual(["a", "b", "c", "a", "b", "c"]);
    expect(seen.map((batch) => batch.trained)).toEqual([0, 1, 1, 1, 2, 3]);
    expect(seen.map((batch) => batch.step)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it("stop the run when there are too many in a row, and leave its steps for the next start", async () => {
    const said = warnings();
    const state = { learnt: 0, cursor: null };
    const program = await programOn(state, [trained, outage, outage, outage]);
    await expect(runLoop(await program(), { maxIdleBatches: 3 })).rejects.toMatchObject({
      code: "nothing_trained",
      message: expect.stringMatching(/3 batches .* 12 judge_failed.*1 of 4 are trained/) as string,
    });
    expect(said()).toEqual([]);
    // The next start, with the judge back.
    const again = await runLoop(await program(), { maxIdleBatches: 3 });
    expect(again.map((batch) => batch.trained)).toEqual([1, 2, 3]);
    expect(again.map((batch) => batch.scenarios[0])).toEqual(["b", "c", "a"]);
    expect(said()).toEqual([
      expect.stringMatching(/1 of the 4 steps of m are trained: 3 are left/),
    ]);
    expect(await runLoop(await program())).toEqual([]);
    expect(said()[1]).toMatch(/4 of the 4 steps of m are trained: none is left/);
  });

  it("are no error where all that is wrong is that rewards do not differ", async () => {
    const said = warnings();
    const program = await programOn({ learnt: 0, cursor: null }, [trained, equal, equal]);
    expect(await runLoop(await program(), { maxIdleBatches: 2 })).toHaveLength(3);
    expect(said()).toEqual([expect.stringMatching(/8 zero_variance.*1 of 4 are trained/s)]);
  });

  it("nor where the other groups have no reward, as one that applies to a part of the scenarios", async () => {
    const said = warnings();
    const without: Step = { trained: false, reasons: { no_reward: 4 } };
    const mixed: Step = { trained: false, reasons: { zero_variance: 1, no_reward: 3 } };
    const program = await programOn({ learnt: 0, cursor: null }, [trained, without, mixed]);
    expect(await runLoop(await program(), { maxIdleBatches: 2 })).toHaveLength(3);
    expect(said()).toEqual([expect.stringMatching(/do not differ any more where there are any/)]);
  });

  it.each([{ no_reward: 4 }, { zero_variance: 1, judge_failed: 3 }])(
    "are an error where something is to be mended: %o",
    async (reasons) => {
      const fault: Step = { trained: false, reasons };
      const program = await programOn({ learnt: 0, cursor: null }, [trained, fault, fault]);
      await expect(runLoop(await program(), { maxIdleBatches: 2 })).rejects.toMatchObject({
        code: "nothing_trained",
        message: expect.stringMatching(/Or let it end with what it has: give 1 steps/) as string,
      });
    },
  );

  it("only count in a row", async () => {
    const program = await programOn({ learnt: 0, cursor: null }, [outage, trained, outage]);
    expect(await runLoop(await program(), { maxIdleBatches: 2 })).toHaveLength(6);
  });

  it("are made up for at the end by a program that does not wait for its steps", async () => {
    const program = await programOn({ learnt: 0, cursor: null }, [outage, equal, outage]);
    const model = await program();
    let batches = 0;
    for await (const batch of model.batches(["a", "b"], plan)) {
      batches += 1;
      model.startTrain([group], { batch });
    }
    expect(batches).toBe(7);
  });

  it("were steps for cursors of before, which say no more", async () => {
    warnings();
    const cursor = { epoch: 0, position: 1, seed: 0, step: 3, size: 3, shuffle: false };
    const program = await programOn({ learnt: 1, cursor }, []);
    expect((await runLoop(await program())).map((batch) => batch.trained)).toEqual([3]);
  });
});

describe("two programs that train one model", () => {
  it("are warned in the step", async () => {
    const said = warnings();
    const program = await programOn({ learnt: 0, cursor: null }, [equal]);
    const [one, other] = [await program(), await program()];
    expect((await one.train([group])).warnings).toEqual([]);
    expect((await one.train([group])).warnings).toEqual([]);
    for (const model of [other, one]) {
      const { warnings: told } = await model.train([group]);
      expect(told).toEqual([expect.stringMatching(/another program trains the same model/)]);
    }
    expect(said()).toHaveLength(2);
    // Alone again.
    expect((await one.train([group])).warnings).toEqual([]);
  });

  it("are not suspected where a program goes on with its own run", async () => {
    warnings();
    const state = { learnt: 0, cursor: null };
    const program = await programOn(state, []);
    const early = await program();
    await runLoop(await program(), { steps: 2 });
    const results: TrainResult[] = [];
    for await (const batch of early.batches(["a", "b", "c"], plan)) {
      results.push(await early.train([group], { batch }));
    }
    expect(results.flatMap(({ warnings: told }) => told)).toEqual([]);
  });
});

describe("a schedule", () => {
  const schedule = { type: "linear", end: 0.5 } as const;

  it("gives each trained step its rate; a batch that trained nothing takes none", async () => {
    const state = { learnt: 0, cursor: null, rates: [] as number[] };
    const model = await (await programOn(state, [trained, equal]))();
    for await (const batch of model.batches(["a", "b", "c"], { ...plan, steps: 3 })) {
      await model.train([group], { batch, learningRate: 4, schedule });
    }
    expect(state.rates).toEqual([4, 3, 3, 2]);
  });

  it("falls from the default rate, and refuses a step that is of no run", async () => {
    const state = { learnt: 0, cursor: null, rates: [] as number[] };
    const model = await (await programOn(state, []))();
    for await (const batch of model.batches(["a"], { ...plan, steps: 2 })) {
      await model.train([group], { batch, schedule });
    }
    expect(state.rates).toEqual([1e-4, 5e-5]);
    expect(() => model.startTrain([group], { schedule })).toThrow(/schedule needs .* Pass batch/);
  });
});
