import { describe, expect } from "vitest";
import { HoneError } from "@hone/core";
import { WorkerFault } from "../ports/trainer.ts";
import { completionOf, ended, type Reply, rolloutsWith } from "../testing/fixtures.ts";
import { test as stateTest } from "../testing/state-test.ts";

type Members = { rolloutId: string; reward: number | null }[];
const group = (rollouts: Members, id = "g") => ({ id, rollouts });
const op = (...groups: object[]) => ({ type: "train", groups });

const test = stateTest.extend("run", ({ server }) => {
  return async (given: object, rest: object = {}): Promise<Reply["json"]> =>
    ended(server, (await server.submit(given, rest)).json.id);
});

describe("models", () => {
  test("made once however often it is asked for, and found after a restart", async ({ server }) => {
    const replies = await Promise.all(
      Array.from({ length: 5 }, () => server.call("PUT", "/v1/models/n", {})),
    );
    expect(new Set(replies.map(({ json }) => JSON.stringify(json))).size).toBe(1);
    expect(replies[0]?.json).toMatchObject({
      learnt: 0,
      served: 0,
      base: "base",
      lora: { r: 16, alpha: 32 },
    });
    await server.reopen();
    expect(await server.call("PUT", "/v1/models/n", { base: "base" })).toEqual(replies[0]);
    expect((await server.call("GET", "/v1/models/n/policies")).json.data).toMatchObject([
      { id: "n@0", live: true, checkpoint: "models/n/policies/0" },
    ]);
  });

  test("a name that the base has is refused: calls for the one would be answered by the other", async ({
    server,
  }) => {
    for (const body of [{}, { base: "base" }]) {
      const { status, json } = await server.call("PUT", "/v1/models/base", body);
      expect(status).toBe(400);
      expect(json.error).toMatchObject({ code: "invalid_request", param: "name" });
      expect(json.error.message).toMatch(/"base" is the name of the base.*Choose another name/);
    }
    expect((await server.call("GET", "/v1/models/base/state")).status).toBe(404);
  });

  test("another base or another shape is refused, both named", async ({ server }) => {
    const { json } = await server.call("PUT", "/v1/models/n", { base: "Qwen/Qwen3-0.6B" });
    expect(json.error).toMatchObject({ code: "base_mismatch" });
    expect(json.error.message).toMatch(/Qwen\/Qwen3-0.6B.*"base"/);
    expect((await server.call("PUT", "/v1/models/m", { lora: { r: 8 } })).json.error.code).toBe(
      "model_mismatch",
    );
    expect((await server.call("PUT", "/v1/models/..%2fx", {})).status).toBe(400);
    expect((await server.call("GET", "/v1/models/nobody/state")).json.error.code).toBe(
      "model_not_found",
    );
  });

  test("an engine that fails leaves a model that the next request completes", async ({
    engine,
    server,
  }) => {
    engine.failNext = new HoneError("away", { code: "engine_unavailable" });
    expect((await server.call("PUT", "/v1/models/n", {})).status).toBe(503);
    expect((await server.call("PUT", "/v1/models/n", {})).json).toMatchObject({
      learnt: 0,
      served: 0,
    });
  });
});

describe("submitting", () => {
  test("the same token twenty times at once, and after a restart, is one step", async ({
    trainer,
    server,
  }) => {
    const body = { clientToken: "once", op: op(group(await rolloutsWith(server, [0, 1]))) };
    const send = () => server.call("POST", "/v1/models/m/operations", body);
    const ids = (await Promise.all(Array.from({ length: 20 }, send))).map(({ json }) => json.id);
    expect(new Set(ids).size).toBe(1);
    expect(await ended(server, ids[0])).toMatchObject({ status: "succeeded" });
    await server.reopen();
    expect((await send()).json).toMatchObject({ id: ids[0], status: "succeeded" });
    expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
    expect(trainer.trained).toHaveLength(1);
    const other = { ...body, op: { ...body.op, config: { learningRate: 1 } } };
    expect(await server.call("POST", "/v1/models/m/operations", other)).toMatchObject({
      status: 422,
      json: { error: { code: "client_token_reused" } },
    });
  });

  test("operations run in their order, steps without a gap", async ({ server }) => {
    const groups = [];
    for (let i = 0; i < 4; i++) groups.push(group(await rolloutsWith(server, [0, 1])));
    const ids = [];
    for (const given of groups) ids.push((await server.submit(op(given))).json.id);
    const results = await Promise.all(ids.map((id) => ended(server, id)));
    expect(results.map(({ result }) => result.step)).toEqual([1, 2, 3, 4]);
  });

  test("a wrong expectedStep is refused, also where it became wrong in the queue", async ({
    trainer,
    server,
    run,
  }) => {
    const [a, b, c] = [
      group(await rolloutsWith(server, [0, 1])),
      group(await rolloutsWith(server, [0, 1])),
      group(await rolloutsWith(server, [0, 1])),
    ];
    expect(await server.submit(op(a), { expectedStep: 1 })).toMatchObject({
      status: 409,
      json: { error: { code: "step_mismatch", param: "expectedStep" } },
    });
    // The first does not end before the second is in the queue behind it.
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => void (release = resolve));
    trainer.before.push(() => released);
    const first = (await server.submit(op(b), { expectedStep: 0 })).json.id;
    const second = (await server.submit(op(c), { expectedStep: 0 })).json.id;
    release();
    expect((await ended(server, first)).status).toBe("succeeded");
    expect(await ended(server, second)).toMatchObject({
      status: "failed",
      error: { code: "step_mismatch" },
    });
    expect((await run(op(c), { expectedStep: 1 })).status).toBe("succeeded");
  });

  test("what cannot be trained is refused by name", async ({ server, run }) => {
    const [a, b] = await rolloutsWith(server, [0, 1]);
    const [mine] = await rolloutsWith(server, [1]);
    const evaluation = (await server.call("POST", "/v1/rollouts", { model: "m", mode: "eval" }))
      .json.id;
    const open = (await server.call("POST", "/v1/rollouts", { model: "m" })).json.id;
    await server.call("PUT", "/v1/models/n", {});
    const foreign = (await server.call("POST", "/v1/rollouts", { model: "n" })).json.id;
    const refusals: [object, number, string, string][] = [
      [
        op(group([a!, { rolloutId: "ro_none", reward: 1 }])),
        404,
        "rollout_not_found",
        "op.groups[0].rollouts[1].rolloutId",
      ],
      [
        op(group([{ rolloutId: evaluation, reward: 1 }])),
        400,
        "eval_rollout",
        "op.groups[0].rollouts[0].rolloutId",
      ],
      [op(group([a!, a!])), 409, "already_trained", "op.groups[0].rollouts[1].rolloutId"],
      [
        op(group([a!]), group([a!], "h")),
        409,
        "already_trained",
        "op.groups[1].rollouts[0].rolloutId",
      ],
      [
        op(group([{ rolloutId: open, reward: null }])),
        409,
        "rollout_open",
        "op.groups[0].rollouts[0].rolloutId",
      ],
      [
        op(group([{ rolloutId: foreign, reward: 1 }])),
        409,
        "model_mismatch",
        "op.groups[0].rollouts[0].rolloutId",
      ],
      [op(group([a!]), group([b!])), 400, "invalid_request", "op.groups[1].id"],
      [
        op(group([{ rolloutId: a!.rolloutId } as never])),
        400,
        "invalid_reward",
        "op.groups[0].rollouts[0].reward",
      ],
      [
        { ...op(group([a!])), config: { learningrate: 1 } },
        400,
        "unsupported_parameter",
        "op.config.learningrate",
      ],
      [
        { ...op(group([a!])), config: { maxSequenceTokens: 513 } },
        400,
        "invalid_request",
        "op.config.maxSequenceTokens",
      ],
      [{ type: "guess" }, 400, "invalid_request", "op.type"],
    ];
    for (const [given, status, code, param] of refusals) {
      expect(await server.submit(given)).toMatchObject({
        status,
        json: { error: { code, param } },
      });
    }
    const stranger = await server.submit(op(group([mine!])), {}, "other");
    expect(stranger.json.error.message).toContain(mine!.rolloutId);
    // Nothing of all this claimed anything.
    expect((await run(op(group([a!, b!])))).result.trained).toBe(true);
    expect((await server.submit(op(group([a!, mine!])))).json.error.code).toBe("already_trained");
  });

  test("an open rollout whose reward is given is finished by it", async ({ server, run }) => {
    const { json } = await server.call("POST", "/v1/rollouts", { model: "m" });
    const lease = await server.state.router.leaseForRollout("local", json.id, "m");
    await server.state.ledger.append([completionOf(json.id, { policy: "m@0" })]);
    lease.release();
    const [other] = await rolloutsWith(server, [0]);
    const result = await run(op(group([{ rolloutId: json.id, reward: 1 }, other!])));
    expect(result.result.groups[0]).toMatchObject({ trainedRollouts: 2 });
    expect((await server.call("GET", `/v1/rollouts/${json.id}`)).json).toMatchObject({
      status: "finished",
      reward: 1,
    });
  });
});

describe("a step", () => {
  test("that trains nothing says why, keeps N, moves the cursor and frees its rollouts", async ({
    trainer,
    server,
    run,
  }) => {
    const members = await rolloutsWith(server, [1, 1, null]);
    const lonely = await rolloutsWith(server, [1]);
    const { status, result } = await run({
      ...op(group(members), group(lonely, "h"), { ...group([], "i"), failed: "judge_failed" }),
      cursor: { epoch: 0, next: 8 },
    });
    expect(status).toBe("succeeded");
    expect(result).toMatchObject({
      trained: false,
      step: 0,
      policy: "m@0",
      checkpoint: null,
      reasons: { zero_variance: 1, group_too_small: 1, judge_failed: 1 },
      metrics: { reward: 1, reward_std: 0, frac_reward_zero_std: 1 },
    });
    expect(await server.model()).toMatchObject({
      learnt: 0,
      served: 0,
      cursor: { epoch: 0, next: 8 },
    });
    expect(trainer.trained).toEqual([]);
    const again = members.map(({ rolloutId }, i) => ({ rolloutId, reward: i }));
    expect((await run(op(group(again)))).result).toMatchObject({ trained: true, step: 1 });
    // A step that names no cursor leaves it where it was.
    expect((await server.model()).cursor).toEqual({ epoch: 0, next: 8 });
  });

  test("that trains nothing moves the cursor to where it says for that case", async ({
    server,
    run,
  }) => {
    const members = await rolloutsWith(server, [1, 1]);
    const cursors = { cursor: { next: 8, trained: 1 }, untrainedCursor: { next: 8, trained: 0 } };
    await run({ ...op(group(members)), ...cursors });
    expect((await server.model()).cursor).toEqual(cursors.untrainedCursor);
    const others = members.map(({ rolloutId }, i) => ({ rolloutId, reward: i }));
    await run({ ...op(group(others)), ...cursors });
    expect((await server.model()).cursor).toEqual(cursors.cursor);
  });

  test("whose members all lie on the mean is no step either", async ({ trainer, server, run }) => {
    trainer.before.push(() =>
      Promise.reject(
        new HoneError("nothing", {
          code: "train_failed",
          cause: new WorkerFault("no", "nothing_to_train"),
        }),
      ),
    );
    const { result } = await run(op(group(await rolloutsWith(server, [0, 1]))));
    expect(result).toMatchObject({ trained: false, step: 0, reasons: { zero_variance: 1 } });
    expect(result?.type === "train" && result.metrics).toEqual({
      reward: 0.5,
      reward_std: Math.SQRT1_2,
      frac_reward_zero_std: 0,
    });
  });

  test("uses up the groups that trained and no others", async ({ server, run }) => {
    const trained = await rolloutsWith(server, [0, 1, null]);
    const equal = await rolloutsWith(server, [1, 1]);
    expect((await run(op(group(trained), group(equal, "h")))).result.trained).toBe(true);
    const retried = await server.submit(op(group([trained[0]!, equal[0]!])));
    expect(retried.json.error.message).toContain(trained[0]!.rolloutId);
    const free = [...equal, trained[2]!].map(({ rolloutId }, reward) => ({ rolloutId, reward }));
    expect((await run(op(group(free)))).result).toMatchObject({ trained: true, step: 2 });
  });

  test("the request's reward wins over the rollout's own", async ({ server, run }) => {
    const members = await rolloutsWith(server, [null, null]);
    for (const [i, { rolloutId }] of members.entries()) {
      await server.call("PATCH", `/v1/rollouts/${rolloutId}`, { reward: i });
    }
    expect((await run(op(group(members)))).result.reasons).toEqual({ no_reward: 1 });
  });

  test("warns of a mismatch, of optimizer steps that it could not take, and of what then does nothing", async ({
    trainer,
    server,
    run,
  }) => {
    const { train } = trainer;
    trainer.train = async (request) => {
      const result = await train(request);
      return { ...result, metrics: { "sampling/sampling_logp_difference/mean": 0.01 } };
    };
    const given = {
      ...op(group(await rolloutsWith(server, [0, 1]))),
      config: { optimizerSteps: 3, epsilonHigh: 0.4 },
    };
    const { result } = await run(given);
    expect(result.warnings).toHaveLength(3);
    expect(result.warnings.join("\n")).toMatch(
      /optimizerSteps is 3[\s\S]*change nothing: epsilonHigh\. They act in steps[\s\S]*0\.0100/,
    );
  });

  test("a failed publish keeps the learnt step, and `publish` serves it", async ({
    engine,
    server,
    run,
  }) => {
    engine.failNext = new HoneError("no room", { code: "bad_adapter" });
    const failed = await run(op(group(await rolloutsWith(server, [0, 1]))));
    expect(failed).toMatchObject({
      status: "failed",
      error: { code: "publish_failed" },
      result: { trained: true, step: 1 },
    });
    expect(await server.model()).toMatchObject({ learnt: 1, served: 0 });
    expect((await server.state.router.leaseForModel("local", "m")).policy).toBe("m@0");
    await expect(server.state.router.leaseForModel("local", "m@1")).rejects.toMatchObject({
      code: "policy_not_found",
    });
    expect((await run({ type: "publish" })).result).toMatchObject({
      type: "publish",
      step: 1,
      policy: "m@1",
    });
    expect(await server.model()).toMatchObject({ learnt: 1, served: 1 });
  });
});

describe("aborting", () => {
  test("a running step, a queued one, and one that is over", async ({ trainer, server, run }) => {
    let began: () => void = () => undefined;
    const training = new Promise<void>((resolve) => void (began = resolve));
    trainer.before.push(
      (signal) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () =>
            reject(new HoneError("aborted", { code: "aborted" })),
          );
          began();
        }),
    );
    const members = await rolloutsWith(server, [0, 1]);
    const first = (await server.submit(op(group(members)))).json.id;
    const second = (await server.submit(op(group(await rolloutsWith(server, [0, 1]))))).json.id;
    await training;
    expect((await server.call("POST", `/v1/operations/${second}/abort`)).json.status).toBe(
      "aborted",
    );
    await server.call("POST", `/v1/operations/${first}/abort`);
    expect(await ended(server, first)).toMatchObject({
      status: "aborted",
      error: { code: "aborted" },
    });
    expect(await server.model()).toMatchObject({ learnt: 0 });
    const third = await run(op(group(members)));
    expect(third).toMatchObject({ status: "succeeded", result: { step: 1 } });
    expect((await server.call("POST", `/v1/operations/${third.id}/abort`)).json.status).toBe(
      "succeeded",
    );
    expect((await server.call("POST", "/v1/operations/op_none/abort")).status).toBe(404);
    expect((await server.call("GET", `/v1/operations/${first}`, undefined, "other")).status).toBe(
      404,
    );
  });
});
