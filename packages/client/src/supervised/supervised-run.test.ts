import type { OperationEvent, SupervisedResult, TrajectoryGroup } from "@hone/core";
import { afterEach, describe, expect, it } from "vitest";
import { bestOfN } from "./best-of-n.ts";
import type { SftExample } from "./sft.ts";
import { modelInfo, operation, send, startRouteServer } from "../testing/route-server.ts";
import type { RouteServer } from "../testing/route-server.ts";

interface Submitted {
  expectedStep?: number;
  op: {
    type: string;
    examples: { messages: { content: string }[] }[];
    evaluate?: boolean;
    cursor?: { supervised?: Record<string, number> };
    config: { learningRate: number; trainOn?: string };
  };
}

let server: RouteServer;
afterEach(() => server.close());

/** A server that keeps the model's step and cursor, and fails the step of a number. */
async function serverOn(state: { learnt: number; cursor: unknown; failsAt?: number }) {
  const results = new Map<string, SupervisedResult | null>();
  const submitted: Submitted[] = [];
  server = await startRouteServer([
    [
      "(PUT /v1/models/m|GET /v1/models/m/state)",
      (_, response) => send(response, { ...modelInfo(state.cursor), learnt: state.learnt }),
    ],
    [
      "POST /v1/models/m/operations",
      ({ body }, response) => {
        const { op } = body as Submitted;
        submitted.push(body);
        const id = `op_${results.size}`;
        const failed = !op.evaluate && state.failsAt === state.learnt;
        if (!op.evaluate && !failed) {
          state.learnt += 1;
          state.cursor = op.cursor;
        }
        results.set(
          id,
          failed
            ? null
            : {
                type: "sft",
                trained: !op.evaluate,
                step: state.learnt,
                policy: `m@${state.learnt}`,
                examples: op.examples?.length,
                dropped: [],
                metrics: { loss: 1 / (1 + state.learnt), train_tokens: op.examples?.length },
                checkpoint: null,
                warnings: [],
              },
        );
        send(response, { ...operation("queued"), id, type: "sft" }, 202);
      },
    ],
    [
      "GET /v1/operations/op_\\d+/events",
      ({ path }, response) => {
        const id = path.split("/")[3] as string;
        const result = results.get(id) ?? null;
        const error = {
          message: "Example 0 (from 0) cannot be trained: no.",
          type: "invalid_request_error",
          code: "invalid_request",
          param: "op.examples[0].messages",
        };
        const ended = result
          ? { ...operation("succeeded"), id, type: "sft", result }
          : { ...operation("failed"), id, type: "sft", result: null, error };
        const event = { type: "ended", seq: 1, at: 1, operation: ended } as OperationEvent;
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end(`id: 1\ndata: ${JSON.stringify(event)}\n\n`);
      },
    ],
  ]);
  return { submitted, model: async () => await server.hone().model({ name: "m" }) };
}

const examples: SftExample[] = Array.from({ length: 5 }, (_, at) => ({
  messages: [
    { role: "user", content: `${at}` },
    { role: "assistant", content: "yes" },
  ],
}));
/** Each of the examples, and none twice. */
const once = (seen: unknown[]) => seen.length === 5 && new Set(seen).size === 5;
const said = ({ op }: Submitted) => op.examples.map(({ messages }) => messages[0]?.content);

describe("a run", () => {
  it("trains each example once an epoch, in another order each time, at the schedule's rate", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const run = await (
      await model()
    ).sft(examples, {
      epochs: 2,
      batchSize: 2,
      learningRate: 4,
      schedule: { type: "linear", end: 0.5 },
    });
    expect(run).toMatchObject({ steps: 6, done: 6, step: 6, policy: "m@6", dropped: [] });
    expect(run.losses).toHaveLength(6);
    const epochs = [submitted.slice(0, 3), submitted.slice(3)].map((steps) => steps.flatMap(said));
    for (const epoch of epochs) expect(once(epoch)).toBe(true);
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(submitted.map(({ op }) => op.config.learningRate)).toEqual([4, 3.6, 3.2, 2.8, 2.4, 2]);
    expect(submitted.map(({ expectedStep }) => expectedStep)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it("that was cut off goes on after the last committed step, and trains nothing once it is over", async () => {
    const state = { learnt: 0, cursor: { kept: true } as unknown, failsAt: 2 };
    const { submitted, model } = await serverOn(state);
    const options = { batchSize: 1, seed: 3 };
    await expect((await model()).sft(examples, options)).rejects.toMatchObject({
      code: "invalid_request",
      message: expect.stringMatching(/^examples\[\d\] cannot be trained: no/) as string,
    });
    expect(submitted).toHaveLength(3);
    state.failsAt = -1;
    const events: unknown[] = [];
    const rest = await (
      await model()
    ).sft(examples, { ...options, onProgress: (event) => events.push(event) });
    expect(rest).toMatchObject({ steps: 5, done: 3, step: 5 });
    expect(events[0]).toEqual({ type: "resumed", step: 2, steps: 5 });
    // What was trained, the failed step not counted: every example once.
    const trained = submitted.toSpliced(2, 1).flatMap(said);
    expect(once(trained)).toBe(true);
    expect(await (await model()).sft(examples, options)).toMatchObject({ done: 0, step: 5 });
    expect(submitted).toHaveLength(6);
    expect(state.cursor).toMatchObject({ kept: true });
    // Other examples are another run; a name makes them the same one.
    expect(await (await model()).sft(examples.slice(1), options)).toMatchObject({ done: 4 });
    await (await model()).sft(examples, { ...options, run: "named" });
    const renamed = { ...options, run: "named" };
    expect(await (await model()).sft(examples.toReversed(), renamed)).toMatchObject({ done: 0 });
    // Its steps would stand for other examples.
    for (const [given, other] of [
      [examples, { ...renamed, batchSize: 2 }],
      [examples.slice(1), renamed],
      [examples, { ...renamed, seed: 4 }],
    ] as const) {
      await expect((await model()).sft(given, other)).rejects.toMatchObject({ param: "run" });
    }
    // No name is one that every object has.
    const odd = { ...options, run: "constructor" };
    expect(await (await model()).sft(examples, odd)).toMatchObject({ done: 5 });
  });

  it("stays known when a batch is trained that was dealt out before it", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const m = await model();
    for await (const batch of m.batches(["a", "b"], { groupsPerStep: 1, steps: 1 })) {
      await m.sft(examples, { batchSize: 5 });
      const { op } = submitted.at(-1) as Submitted;
      const member = { rolloutId: "ro_1", reward: 1 } as TrajectoryGroup["trajectories"][number];
      const groups = [
        { id: "g", metadata: {}, trajectories: [member] },
      ] as unknown as TrajectoryGroup[];
      await m.train(groups, { batch }).catch(() => undefined);
      const trained = submitted.at(-1) as Submitted;
      expect(trained.op.type).toBe("train");
      expect(Object.values(trained.op.cursor?.supervised ?? {})).toEqual([1]);
      expect(trained.op.cursor).toEqual({ ...batch.cursor, ...op.cursor });
      break;
    }
  });

  it("leaves the batches' cursor readable, and is found again behind it", async () => {
    const state = { learnt: 0, cursor: null as unknown };
    const { model } = await serverOn(state);
    await (await model()).sft(examples, { batchSize: 5 });
    const dealt = [];
    for await (const batch of (await model()).batches(["a", "b"], { groupsPerStep: 1, steps: 1 })) {
      dealt.push(batch);
      state.cursor = JSON.parse(JSON.stringify(batch.cursor));
    }
    expect(dealt).toHaveLength(1);
    expect(await (await model()).sft(examples, { batchSize: 5 })).toMatchObject({ done: 0 });
  });

  it("measures what is held out before, during and after, and trains none of it", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const run = await (await model()).sft(examples, { batchSize: 1, validation: 0.4 });
    expect(run).toMatchObject({ steps: 3, done: 3 });
    expect(run.validations.map(({ step, loss }) => [step, loss])).toEqual([
      [0, 1],
      [3, 0.25],
    ]);
    expect(run.validations[1]?.perplexity).toBeCloseTo(Math.exp(0.25), 12);
    const [held, trained] = [true, undefined].map((evaluate) =>
      submitted.filter(({ op }) => op.evaluate === evaluate).flatMap(said),
    );
    expect(new Set([...held!, ...trained!]).size).toBe(5);
    expect(trained!.filter((one) => held!.includes(one))).toEqual([]);
  });

  it("holds equal examples out together", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const doubled = [...examples, ...examples, ...examples.slice(0, 2)];
    await (await model()).sft(doubled, { batchSize: 4, validation: 0.3 });
    const [held, trained] = [true, undefined].map(
      (evaluate) => new Set(submitted.filter(({ op }) => op.evaluate === evaluate).flatMap(said)),
    );
    expect([...trained!].filter((one) => held!.has(one))).toEqual([]);
    expect(held!.size + trained!.size).toBe(5);
    const same = Array.from({ length: 9 }, () => examples[0]!);
    await expect((await model()).sft(same, { validation: 0.3 })).rejects.toThrow(
      /equal ones together/,
    );
  });

  it("names what is too large to be sent together, before anything is trained", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const m = await model();
    // Two bytes a character.
    const long = (mebibytes: number): SftExample => ({
      messages: [
        { role: "user", content: "ä".repeat(mebibytes * 2 ** 19) },
        { role: "assistant", content: "yes" },
      ],
    });
    const given = [...examples, long(3), examples[0]!, long(5.5)];
    const options = { batchSize: 4, shuffle: false };
    const refused = (words: RegExp) => ({
      code: "body_too_large",
      param: "batchSize",
      message: expect.stringMatching(words) as string,
    });
    await expect(m.sft(given, options)).rejects.toMatchObject(
      refused(
        /^sft\(\): step 2 of 2 would be a request of 8\.5 MiB, and one holds 8\.0 MiB\. .*: examples\[7\] \(5\.5 MiB\), examples\[5\] \(3\.0 MiB\)\. Give/,
      ),
    );
    await expect(m.sft(given, { ...options, epochs: 3 })).rejects.toMatchObject(
      refused(/step 2 of 6 would be .* \(of the run 3 requests are too large\)/),
    );
    await expect(m.sft(examples, { ...options, validation: given })).rejects.toMatchObject(
      refused(/what the validation measures together would be .*: validation\[7\] \(5\.5 MiB\)/),
    );
    expect(submitted).toEqual([]);
    expect(await m.sft(given, { ...options, batchSize: 2 })).toMatchObject({ done: 4 });
  });

  it("ends while the examples are read when its signal aborts", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const stop = new AbortController();
    let read = 0;
    async function* given() {
      for (const example of examples) {
        read += 1;
        if (read === 2) stop.abort("enough");
        yield example;
      }
    }
    const m = await model();
    await expect(m.sft(given(), { signal: stop.signal })).rejects.toMatchObject({
      code: "aborted",
      cause: "enough",
    });
    expect([read, submitted.length]).toEqual([2, 0]);
  });

  it("refuses what it does not know, and what teaches nothing", async () => {
    const { submitted, model } = await serverOn({ learnt: 0, cursor: null });
    const m = await model();
    const ask = { messages: [{ role: "user" as const, content: "?" }] };
    for (const [given, options, words] of [
      [examples, { epoch: 2 }, /has no option "epoch"/],
      [examples, { batchSize: 0 }, /batchSize is a whole number of at least 1/],
      [examples, { validateEvery: 2 }, /validateEvery needs validation/],
      [examples, { run: "" }, /run is a name/],
      [examples, { validation: 0.01 }, /holds 0 out/],
      [examples, { validation: -0.2 }, /validation is a share above 0 and below 1, not -0.2/],
      [examples, { validation: 3 }, /validation is a share above 0/],
      [examples, { validation: Number.NaN }, /validation is a share above 0/],
      [examples, { shuffle: "no" }, /shuffle is true or false, not the text "no"/],
      [examples, { trainOn: "user" }, /trainOn must be one of/],
      [examples, { schedule: { type: "step" } }, /schedule.type is one of/],
      [[ask], {}, /examples\[0\] is no example: no assistant message/],
      [[], {}, /at least one example/],
    ] as const) {
      await expect(m.sft(given, options as object)).rejects.toThrow(words);
    }
    const pair = { prompt: ask.messages, chosen: ask.messages, rejected: ask.messages };
    await expect(m.dpo([pair])).rejects.toThrow(/is no pair: chosen has no assistant message/);
    await expect(m.dpo([pair], { loss: "ipo", labelSmoothing: 0.1 })).rejects.toThrow(
      /labelSmoothing is wrong: it has no meaning/,
    );
    expect(submitted).toEqual([]);
  });
});

describe("bestOfN", () => {
  const trajectory = (name: string, reward: number | null) =>
    ({ rolloutId: name, reward }) as TrajectoryGroup["trajectories"][number];
  const group = (...rewards: (number | null)[]) =>
    ({
      id: "g",
      trajectories: rewards.map((reward, at) => trajectory(`r${at}`, reward)),
    }) as TrajectoryGroup;

  it("takes the best of each group, the earlier of equals, and none without a reward", async () => {
    server = await startRouteServer([]);
    const ids = (...args: Parameters<typeof bestOfN>) =>
      bestOfN(...args).map(({ rolloutId }) => rolloutId);
    expect(ids([group(0, 1, null, 1), group(null), group(-1, -2)])).toEqual(["r1", "r0"]);
    expect(ids([group(0, 1, 0.5)], { n: 2 })).toEqual(["r1", "r2"]);
    expect(ids([group(0, 1), group(0.2)], { minReward: 0.5 })).toEqual(["r1"]);
    expect(() => bestOfN([], { n: 0 })).toThrow(/n is a whole number/);
  });
});
