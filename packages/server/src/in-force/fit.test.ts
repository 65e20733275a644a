import { describe, expect, it } from "vitest";
import { serveCommand } from "../cli/serve.ts";
import { adviceOn } from "./fit.ts";
import type { Facts } from "./facts.ts";
import { optionsInForce } from "./options-in-force.ts";

const gib = 1024 ** 3;
const card = { total: 80 * gib, free: 60 * gib };
const serving = {
  name: "engine",
  state: "serving",
  reason: null,
  joined: false,
  fences: 0,
} as const;
const bucket = {
  place: "s3://weights/a",
  origin: "https://s3.eu-north-1.amazonaws.com",
  state: "ready",
  fallbacks: 0,
};

/** A small machine that serves a small base by the embedded engine, in order. */
const sound: Facts = {
  given: {},
  port: 7777,
  machine: {
    ...{ cores: 8, memory: 16 * gib, freeMemory: 8 * gib, freeDisk: 100 * gib },
    ...{ cards: [], bfloat16: true },
  },
  base: { name: "base", dtype: "float32", renderer: "qwen3", maxModelLen: 4096 },
  memory: { base: 2 * gib, kv_cache: 4 * gib, trainer: gib, step: 0 },
  models: { inUse: 1, highestRank: 8, live: [20e6, 20e6] },
  ...{ engines: [serving], slots: null, evicted: 0, sleep: null, bucket: null },
};

/** The same with vLLM on cards. */
const onCards: Facts = {
  ...sound,
  given: { engine: "vllm", device: "cuda", replicas: 2 },
  machine: { ...sound.machine, cards: [card, card] },
  base: { ...sound.base, dtype: "bfloat16" },
  memory: { base: 8 * gib, kv_cache: 0, trainer: 4 * gib, step: 12 * gib },
  slots: 6,
};
const joined: Facts = {
  ...sound,
  given: { engine: "joined", host: "0.0.0.0" },
  engines: [{ ...serving, name: "joined-1", joined: true }],
  bucket,
};

type Change = (facts: Facts) => Facts;
const given =
  (more: Facts["given"]): Change =>
  (facts) => ({ ...facts, given: { ...facts.given, ...more } });
const machine =
  (more: Partial<Facts["machine"]>): Change =>
  (facts) => ({ ...facts, machine: { ...facts.machine, ...more } });

it.each([
  ["the embedded engine", sound],
  ["vLLM on cards", onCards],
  ["engines that join, and a bucket", joined],
])("says nothing of %s in order", (_, facts) => {
  expect(adviceOn(facts)).toEqual([]);
});

describe("says what does not fit:", () => {
  it.each<[string, Facts, Change, "misfit" | "hint", string, RegExp]>([
    [
      "the base twice",
      { ...sound, memory: { base: 7 * gib, kv_cache: 2 * gib, trainer: gib, step: 0 } },
      given({ engineProcess: "own" }),
      "misfit",
      "--engine-process",
      /the base twice 14.0 GiB.* has 16.0 GiB/,
    ],
    [
      "too large keys and values",
      { ...sound, memory: { ...sound.memory!, kv_cache: 14 * gib } },
      given({ kvCacheMib: 14_336 }),
      "misfit",
      "--kv-cache-mib",
      /They take 17.0 GiB/,
    ],
    [
      "vLLMs without memory",
      sound,
      given({ engine: "vllm", replicas: 5 }),
      "misfit",
      "--replicas",
      /vLLM 15.0 GiB/,
    ],
    [
      "a vLLM that never sleeps",
      { ...onCards, sleep: { slept: 0, stayedAwake: 4 } },
      given({ replicas: 1, sleep: true }),
      "hint",
      "--sleep",
      /stayed awake for all of 4 steps/,
    ],
    [
      "a vLLM whose weights have no place while it sleeps",
      { ...onCards, memory: { ...onCards.memory!, base: 20 * gib } },
      given({ replicas: 1, sleep: true }),
      "misfit",
      "--sleep",
      /20.0 GiB of weights .* has 16.0 GiB/,
    ],
    [
      "conversations let go of",
      { ...sound, evicted: 12 },
      (facts) => facts,
      "hint",
      "--kv-cache-mib",
      /^12 conversations/,
    ],
    [
      "a card that nobody uses",
      sound,
      machine({ cards: [card] }),
      "hint",
      "--device",
      /Add --device cuda/,
    ],
    [
      "bfloat16 without instructions",
      { ...sound, base: { ...sound.base, dtype: "bfloat16" } },
      machine({ bfloat16: false }),
      "hint",
      "--dtype",
      /AVX512-BF16/,
    ],
    [
      "a longer sequence than there is",
      sound,
      given({ maxModelLen: 8192 }),
      "hint",
      "--max-model-len",
      /8192 were given and 4096 are in force/,
    ],
    [
      "recompute always",
      sound,
      given({ recompute: "on" }),
      "hint",
      "--recompute",
      /third more time/,
    ],
    [
      "an impatient trainer",
      sound,
      given({ deadlines: { trainingMs: 10_000 } }),
      "hint",
      "--training-deadline",
      /for 10 s/,
    ],
    [
      "a tolerance that none keeps",
      sound,
      given({ probeTolerance: 0 }),
      "misfit",
      "--probe-tolerance",
      /would be fenced/,
    ],
    [
      "a tolerance that all keep",
      sound,
      given({ probeTolerance: 0.5 }),
      "hint",
      "--probe-tolerance",
      /not noticed/,
    ],
    [
      "memory for no two policies",
      sound,
      given({ adapterMemory: 30e6 }),
      "hint",
      "--adapter-memory",
      /hold no two/,
    ],
    [
      "held policies past the memory",
      { ...sound, models: { ...sound.models, live: Array(40).fill(20e6) } },
      (facts) => facts,
      "hint",
      "--adapter-memory",
      /because rollouts hold them/,
    ],
    [
      "a disk that is nearly full",
      sound,
      machine({ freeDisk: 3e8 }),
      "misfit",
      "--keep",
      /hone gc/,
    ],
    [
      "more vLLMs than cards",
      onCards,
      given({ replicas: 4 }),
      "hint",
      "--replicas",
      /4 vLLMs share 2 cards, 2 on one/,
    ],
    [
      "more vLLMs than cores",
      { ...sound, machine: { ...sound.machine, cores: 2, memory: 64 * gib } },
      given({ engine: "vllm", replicas: 3 }),
      "misfit",
      "--replicas",
      /2 cores/,
    ],
    [
      "a share that the trainer has",
      onCards,
      given({ vllmFlags: ["--gpu-memory-utilization", "0.9"] }),
      "misfit",
      "--",
      /0.9 and the trainer's 20.0 GiB are 92.0 GiB/,
    ],
    [
      "too few slots",
      { ...onCards, models: { ...onCards.models, inUse: 5 } },
      given({ maxStaleness: 1 }),
      "hint",
      "--max-staleness",
      /from 6 policies at a time, and 5 models in use now, .* up to 1 step old, want 15/,
    ],
    [
      "too low a rank",
      onCards,
      given({ vllmFlags: ["--max-lora-rank=4"] }),
      "misfit",
      "--",
      /has rank 8/,
    ],
    [
      "an engine that is fenced",
      {
        ...onCards,
        engines: [serving, { ...serving, name: "engine-2", state: "away", reason: "It lags." }],
      },
      (facts) => facts,
      "misfit",
      "--engine",
      /engine-2 takes no requests: It lags/,
    ],
    [
      "an engine that was late",
      { ...onCards, engines: [{ ...serving, fences: 3 }] },
      (facts) => facts,
      "hint",
      "--publish-deadline",
      /engine 3 times/,
    ],
    [
      "no time to fetch",
      joined,
      given({ publishDeadlineMs: 2_000 }),
      "hint",
      "--publish-deadline",
      /have 2 s/,
    ],
    [
      "no engine, and nobody who can come",
      { ...joined, engines: [], bucket: null },
      given({ host: "127.0.0.1" }),
      "misfit",
      "--engine",
      /--host 0.0.0.0.*hone engines token/,
    ],
    [
      "a bucket that is away",
      { ...joined, bucket: { ...bucket, state: "unreachable", reason: "it answered 503." } },
      (facts) => facts,
      "misfit",
      "--bucket",
      /of no use now: it answered 503/,
    ],
    [
      "a bucket for nobody",
      { ...joined, engines: [serving] },
      (facts) => facts,
      "hint",
      "--bucket",
      /No engine has joined/,
    ],
    [
      "a bucket that does not give",
      { ...joined, bucket: { ...bucket, fallbacks: 2 } },
      (facts) => facts,
      "hint",
      "--bucket",
      /2 times/,
    ],
    [
      "a bucket over http",
      { ...joined, bucket: { ...bucket, origin: "http://minio:9000" } },
      (facts) => facts,
      "hint",
      "--bucket-endpoint",
      /in clear/,
    ],
  ])("%s", (_, facts, change, verdict, option, message) => {
    const said = adviceOn(change(facts));
    expect(said).toHaveLength(1);
    expect(said[0]).toMatchObject({ verdict, message: expect.stringMatching(message) });
    expect(said[0]?.options[0]).toBe(option);
    // What it is about is in the table, so that it is shown.
    const listed = optionsInForce(change(facts)).map((one) => one.option);
    expect(listed).toEqual(expect.arrayContaining(said[0]?.options ?? []));
  });
});

describe("options in force", () => {
  const inForce = (facts: Facts) =>
    Object.fromEntries(optionsInForce(facts).map(({ option, ...rest }) => [option, rest]));

  it("are all of those that serve has, but for what does not bear on what it does", () => {
    const here = ["--data-dir", "--engine-key", "--stop-at-eof", "--log-level"];
    const all = serveCommand().options.map(({ long }) => long ?? "");
    expect([...Object.keys(inForce(sound)), ...here].toSorted()).toEqual([...all, "--"].toSorted());
  });

  it("are told with what they became, and whether they were given", () => {
    const some = {
      device: "cpu",
      keep: 10,
      publishDeadlineMs: 4_000,
      hosts: ["trainer"],
    } as const;
    expect(inForce({ ...sound, given: some })).toMatchObject({
      "--device": { value: "cpu", given: false },
      "--keep": { value: "10", given: false },
      "--dtype": { value: "float32", given: false },
      "--kv-cache-mib": { value: "4096", given: false },
      "--publish-deadline": { value: "4", given: true },
      "--allow-host": { value: "trainer", given: true },
      "--bucket": { value: null, given: false },
    });
    expect(inForce(joined)).toMatchObject({
      "--bucket": { value: "s3://weights/a", given: true },
      "--kv-cache-mib": { value: null },
    });
  });

  it("tell no paths of the server and nothing secret", () => {
    const all = JSON.stringify(
      inForce(
        given({
          engineURL: undefined,
          objectives: ["/home/me/loss.py"],
          rewardModels: { helpful: "/home/me/model" },
          vllmFlags: [
            "--hf-token",
            "of-me",
            "--max-num-seqs",
            "64",
            "--tool-parser-plugin=/home/me/x.py",
          ],
        })(onCards),
      ),
    );
    expect(all).not.toMatch(/home|of-me/);
    expect(all).toContain("--max-num-seqs 64");
    expect(all).toContain("loss.py");
  });
});
