import { describe, expect } from "vitest";
import { ended, rolloutsWith } from "../testing/fixtures.ts";
import { test } from "../testing/state-test.ts";

const op = (rollouts: object[]) => ({ type: "train", groups: [{ id: "g", rollouts }] });
const metric = "sampling/sampling_logp_difference/mean";

describe("a step without rollouts of the policy that it trains", () => {
  test("is compared with the trainer on what the earlier policy sampled", async ({
    trainer,
    server,
  }) => {
    const asked: { folder: string; sequences: readonly (readonly number[])[] }[] = [];
    let off = 0;
    trainer.logprobs = async (folder, sequences) => {
      asked.push({ folder, sequences });
      return sequences.map(() => [-9, -9, -0.5 + off, -0.25 - off]);
    };
    const step = async (given: object = { policy: "m@0" }) => {
      const rollouts = await rolloutsWith(server, [0, 1], given);
      return ended(server, (await server.submit(op(rollouts))).json.id);
    };
    // Of the policy that is trained, the worker says it.
    expect((await step({})).status).toBe("succeeded");
    expect(asked).toEqual([]);

    const near = await step();
    expect(near).toMatchObject({ status: "succeeded", result: { warnings: [] } });
    expect(near.result.metrics[metric]).toBeCloseTo(0, 6);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({
      folder: expect.stringMatching(/m\/policies\/0$/),
      sequences: [
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5],
      ],
    });

    off = 0.01;
    const far = await step();
    expect(far).toMatchObject({
      status: "succeeded",
      result: { warnings: [expect.stringMatching(/differ from the trainer's by 0.0100/)] },
    });
    off = 0.2;
    expect(await step()).toMatchObject({
      status: "failed",
      error: {
        code: "train_failed",
        message: expect.stringMatching(/logprobs of m@0 differ .* by 0.200 .* more than 0.1/),
      },
    });
    expect(await server.model()).toMatchObject({ learnt: 3 });
  });

  test("trains where there is nothing to compare, or the trainer cannot tell", async ({
    trainer,
    server,
  }) => {
    let asked = 0;
    trainer.logprobs = async () => {
      asked++;
      throw new Error("the folder was removed");
    };
    const step = async (given: object = {}) => {
      const rollouts = await rolloutsWith(server, [0, 1], given);
      return ended(server, (await server.submit(op(rollouts))).json.id);
    };
    await step();
    expect((await step({ policy: "m@0" })).status).toBe("succeeded");
    expect(asked).toBe(1);
    // At another temperature the engine's are of another distribution.
    expect((await step({ policy: "m@0", temperature: 0.7 })).status).toBe("succeeded");
    expect(asked).toBe(1);
  });
});
