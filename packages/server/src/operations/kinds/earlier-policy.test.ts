import { pino } from "pino";
import { expect, it } from "vitest";
import type { LedgerCompletion } from "../../ports/ledger.ts";
import type { StepPlan } from "../../step-data/step-data.ts";
import { differenceOfEarlier } from "./earlier-policy.ts";
import type { Task } from "./kind.ts";

/** A conversation of two turns of which the second alone trains, of so many tokens in all. */
function conversation(id: string, tokens: number): [LedgerCompletion, LedgerCompletion] {
  const turn = (parentId: string | null, prompt: number, sampled: number) =>
    ({
      ...{ id: parentId === null ? `${id}-first` : id, parentId, policy: "m@3" },
      ...{ temperature: 1, topP: 1, constrained: false },
      promptSuffix: new Int32Array(prompt).fill(7),
      sampled: new Int32Array(sampled).fill(5),
      logprobs: new Float32Array(sampled).fill(-1),
    }) as Partial<LedgerCompletion> as LedgerCompletion;
  return [turn(null, tokens - 20, 10), turn(`${id}-first`, 6, 4)];
}

/** Lengths of what the trainer is asked, and what comes of it. */
async function compare(lengths: readonly number[]) {
  const asked: number[][] = [];
  const turns = lengths.map((tokens, at) => conversation(`c${at}`, tokens));
  const task = {
    record: { model: "m" },
    context: {
      models: { policy: () => ({ removedAt: null }) },
      checkpoints: { path: () => "/m/3" },
      trainer: {
        async logprobs(_: string, sequences: number[][]) {
          asked.push(sequences.map(({ length }) => length));
          return sequences.map((ids) => ids.slice(1).map(() => -1.5));
        },
      },
      log: pino({ enabled: false }),
    },
  } as unknown as Pick<Task, "context" | "record">;
  const plan = {
    config: { step: 5 },
    completions: turns.map(([, { id }]) => ({ id, trainable: true })),
  } as unknown as StepPlan;
  const all = new Map(turns.flat().map((one) => [one.id, one]));
  return { found: await differenceOfEarlier(task, plan, all), asked };
}

it("asks the trainer for two sequences of at most 1,024 tokens, however many there are", async () => {
  const { found, asked } = await compare([1025, 1024, 30_000, 90, 80]);
  expect(asked).toEqual([[1024, 90]]);
  expect(found).toEqual({ policy: "m@3", mean: 0.5 });
});

it("leaves the trainer alone where all are longer", async () => {
  expect(await compare([1025, 4000])).toEqual({ found: null, asked: [] });
});
