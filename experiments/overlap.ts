// `pnpm experiment overlap [--seeds 1,2,3] [--steps 24] [--chunk 8] [--answer-tokens 24] [--optimizer-steps 2]
// [--tool-ms 0] [--engine-process trainer|own] [--out FILE]` — runs with and without playing the next batch while a step
// trains, on the base of the repository with the embedded engine. The two take turns, so many steps each: samples a
// second (medians over the turns), processor time, and what each has learnt. The run in turn has a server as it is by
// default. The one that overlaps has another, whose engine is where --engine-process says. Both warm up first. With
// --tool-ms each rollout waits so long after its answer, as for a tool. FILE gets a line of JSON after each turn.
import { appendFile, mkdtemp, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { compare, gather, Hone, playAhead, type Model, type RolloutModel } from "@hone/client";
import { startServer } from "@hone/server";
import OpenAI from "openai";
import { watchCpu } from "../bench/processes-of.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    steps: { type: "string", default: "24" },
    chunk: { type: "string", default: "8" },
    "answer-tokens": { type: "string", default: "24" },
    "group-size": { type: "string", default: "16" },
    groups: { type: "string", default: "4" },
    "optimizer-steps": { type: "string", default: "2" },
    "tool-ms": { type: "string", default: "0" },
    "engine-process": { type: "string", default: "trainer" },
    out: { type: "string" },
  },
});
const [steps, chunk, answerTokens, groupSize, groupsPerStep] = [
  Number(values.steps),
  Number(values.chunk),
  Number(values["answer-tokens"]),
  Number(values["group-size"]),
  Number(values.groups),
];

const train = Array.from({ length: 40 }, (_, n) => `Say a word. ${n}`);
const heldOut = Array.from({ length: 32 }, (_, n) => `Say a word. ${n + 40}`);

/**
 * The share of the text that is one letter, times the share of the tokens that it may have. Of a plain prompt, because
 * the base answers a chat with one word, and then there would be next to nothing to sample or to train.
 */
async function rollout(model: RolloutModel, prompt: string) {
  const connection = model.connection();
  const completion = await new OpenAI(connection).completions.create({
    ...{ model: connection.model, max_tokens: answerTokens, prompt },
  });
  if (values["tool-ms"] !== "0") await delay(Number(values["tool-ms"]));
  const text = completion.choices[0]?.text ?? "";
  const tokens = completion.usage?.completion_tokens ?? 0;
  const share = (text.split("e").length - 1) / Math.max(1, text.length);
  return { reward: (share * tokens) / answerTokens, metrics: { tokens } };
}

const how = { groupSize, concurrency: 64 };

interface Turn {
  seconds: number;
  played: number;
  trained: number;
  waits: number[];
  tokens: number;
}

/** The next steps of a run, up to `until`. */
async function turn(model: Model, seed: number, until: number, overlapped: boolean) {
  const batches = model.batches(train, { groupsPerStep, steps: until, seed });
  const play = (scenarios: readonly string[], signal?: AbortSignal) =>
    gather(model, rollout, scenarios, { ...how, signal });
  const curve: number[] = [];
  const one: Turn = { seconds: 0, played: 0, trained: 0, waits: [0, 0], tokens: 0 };
  const began = performance.now();
  const step = async (
    batch: NonNullable<Parameters<Model["train"]>[1]>["batch"],
    groups: Awaited<ReturnType<typeof play>>,
  ) => {
    one.tokens += groups
      .flatMap(({ trajectories }) => trajectories)
      .reduce((sum, { metrics }) => sum + (metrics["tokens"] ?? 0), 0);
    const rewards = groups.flatMap(({ trajectories }) => trajectories.map((t) => t.reward ?? 0));
    curve.push(rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length);
    const from = performance.now();
    await model.train(groups, {
      ...{ batch, learningRate: 2e-3, warmupSteps: 3, maxTokensPerMicroBatch: 2048 },
      optimizerSteps: Number(values["optimizer-steps"]),
    });
    one.trained += (performance.now() - from) / 1000;
  };
  if (overlapped) {
    const ahead = playAhead(model, batches, (given, { signal }) => play(given, signal));
    for await (const { batch, groups, overlap } of ahead) {
      one.played += overlap.played;
      one.waits = [
        (one.waits[0] ?? 0) + overlap.waitedForRollouts,
        (one.waits[1] ?? 0) + overlap.waitedForTraining,
      ];
      await step(batch, groups);
    }
  } else {
    for await (const batch of batches) {
      const from = performance.now();
      const groups = await play(batch.scenarios);
      one.played += (performance.now() - from) / 1000;
      await step(batch, groups);
    }
  }
  one.seconds = (performance.now() - began) / 1000;
  return { ...one, curve };
}

const median = (numbers: number[]) =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
const round = (value: number, digits = 2) => Number(value.toFixed(digits));

const folder = await mkdtemp(join(tmpdir(), "hone-overlap-"));
const base = fileURLToPath(new URL("../models/hone-2048-1m", import.meta.url));
const engineProcess = values["engine-process"] === "own" ? "own" : "trainer";
const serverOf = async (name: string, process: "trainer" | "own") =>
  await startServer({ base, port: 0, dataDir: join(folder, name), engineProcess: process });
const servers = {
  "in turn": await serverOf("in-turn", "trainer"),
  overlap: await serverOf("overlap", engineProcess),
};
const names = ["in turn", "overlap"] as const;
const honeOf = (name: (typeof names)[number]) =>
  new Hone({ baseURL: servers[name].url, apiKey: servers[name].key });
const cpu = watchCpu(process.pid, {
  ...{ agent_and_server: /node/, renderer: /renderer/ },
  // The one that also generates has no flag.
  ...{ trainer_apart: /--no-engine/, engine_or_both: /hone_worker\.worker/ },
});
try {
  for (const name of names) {
    const model = await honeOf(name).model({ name: "warm-up" });
    await turn(model, 0, 2, name === "overlap");
  }
  const rates: Record<string, number[]> = { "in turn": [], overlap: [] };
  const ratios: number[] = [];
  const ends: Record<string, Awaited<ReturnType<typeof gather<string>>>> = {
    ...{ "in turn": [], overlap: [] },
  };
  for (const seed of values.seeds.split(",").map(Number)) {
    const arms = await Promise.all(
      names.map(async (name) => ({
        name,
        model: await honeOf(name).model({ name: `run-${seed}`, seed }),
        curve: [] as number[],
      })),
    );
    for (let until = chunk; until <= steps; until += chunk) {
      const pair: Record<string, number> = {};
      // Each goes first in every second turn.
      for (const arm of (until / chunk) % 2 ? arms : arms.toReversed()) {
        const before = cpu.seconds();
        const made = await turn(arm.model, seed, until, arm.name === "overlap");
        await delay(600);
        const used = Object.entries(cpu.seconds()).map(
          ([role, sum]) => [role, round(sum - (before[role] ?? 0))] as const,
        );
        arm.curve.push(...made.curve);
        const rate = (made.curve.length * groupsPerStep * groupSize) / made.seconds;
        rates[arm.name]?.push(rate);
        pair[arm.name] = rate;
        const { seconds, played, trained, waits, tokens } = made;
        console.log(
          `seed ${seed} ${arm.name.padEnd(7)} to step ${until}: ${seconds.toFixed(1)} s, played ${played.toFixed(1)}, trained ${trained.toFixed(1)}, waited ${waits.map((w) => w.toFixed(1)).join(" and ")}, ${rate.toFixed(1)} samples/s, ${(tokens / made.curve.length / groupsPerStep / groupSize).toFixed(1)} tokens each, load ${loadavg()[0]?.toFixed(1)}, processor ${used.map((one) => one.join(" ")).join(", ")}`,
        );
        if (values.out) {
          const line = { seed, until, run: arm.name, rate, ...made, cpu: used, load: loadavg()[0] };
          await appendFile(values.out, `${JSON.stringify(line)}\n`);
        }
      }
      ratios.push((pair["overlap"] ?? 0) / (pair["in turn"] ?? 1));
    }
    for (const { name, model, curve } of arms) {
      console.log(`seed ${seed} ${name}: ${curve.map((value) => value.toFixed(3)).join(" ")}`);
      ends[name]?.push(...(await gather(model, rollout, heldOut, { mode: "eval", groupSize: 16 })));
    }
  }
  console.table(
    Object.entries(rates).map(([name, all]) => ({
      run: name,
      "samples/s, median": round(median(all), 1),
      least: round(Math.min(...all), 1),
      most: round(Math.max(...all), 1),
    })),
  );
  console.log(
    `overlap / in turn, of neighbouring turns: median ${median(ratios).toFixed(2)}, from ${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`,
  );
  const { difference, low, high, before, after } = compare(
    ends["in turn"] ?? [],
    ends["overlap"] ?? [],
    {},
  );
  console.log(
    `held out: in turn ${before.toFixed(3)}, overlap ${after.toFixed(3)}, difference ${difference.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`,
  );
} finally {
  cpu.stop();
  await Promise.all(Object.values(servers).map((server) => server.close()));
  await rm(folder, { recursive: true, force: true });
}
