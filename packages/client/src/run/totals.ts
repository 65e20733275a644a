import { readFile, rename, writeFile } from "node:fs/promises";
import { HoneError, type OperationEvent, type Trajectory } from "@hone/core";

/** What a run has taken so far, over all its starts. */
export interface Totals {
  /** How often it was started: once, and again for each time it was cut off. */
  starts: number;
  /** Seconds of wall time; what a killed start did after its last step or evaluation is not in it. */
  seconds: number;
  /** Seconds of wall time by stage. */
  stages: Record<string, number>;
  /** Answers that were asked for. */
  turns: number;
  /** Tokens that were read and sampled for them; reading what a conversation has said before counts again. */
  promptTokens: number;
  completionTokens: number;
  /** What judges and rollouts say that they paid (`ruler/cost_usd` of a group, `cost_usd` of a rollout). */
  usd: number;
  /** The policy's held-out evaluations: their rollouts, and what they took with all judges. */
  evaluated: { rollouts: number } & Taken;
  /** What each of the newest steps took, with what was evaluated behind it. */
  newestSteps: Taken[];
}

/** What something took: seconds of wall time, and dollars as far as anybody tells. */
export interface Taken {
  seconds: number;
  usd: number;
}

/** Steps that the next one's price is read off. */
const pricedSteps = 3;

export interface RunTotals {
  /** Adds the time that the work takes to its stage. */
  time<Result>(stage: string, work: () => Promise<Result>): Promise<Result>;
  /** The stages of a training step that the server tells of: parts of "training". */
  onEvent(event: OperationEvent): void;
  /** What these rollouts took. Gives what they say that they paid, in dollars. */
  addPlayed(trajectories: readonly Trajectory[]): number;
  /** Throws `invalid_config` for what is no price. */
  addUsd(usd: number): void;
  /** An evaluation of the policy on so many rollouts. */
  addEvaluation(rollouts: number, taken: Taken): void;
  addStep(taken: Taken): void;
  soFar(): Totals;
  /** Writes them down for the next start. */
  save(): Promise<void>;
  /** The same within a second: what a killed start has paid for is then known but for that second. */
  saveSoon(): void;
}

/** Continues the totals of the run's earlier starts. */
export async function openTotals(
  file: string,
  now: () => number = () => performance.now(),
): Promise<RunTotals> {
  const totals = await readTotals(file);
  const earlier = totals.seconds;
  const began = now();
  totals.starts += 1;
  let due: NodeJS.Timeout | undefined;
  let saving: Promise<void> = Promise.resolve();
  async function write(): Promise<void> {
    // Whole or not at all: the run may be killed at any moment.
    await writeFile(`${file}.partial`, `${JSON.stringify(soFar(), null, 2)}\n`);
    await rename(`${file}.partial`, file);
  }
  function save(): Promise<void> {
    clearTimeout(due);
    due = undefined;
    saving = saving.then(write, write);
    return saving;
  }
  const soFar = (): Totals => ({
    ...totals,
    stages: { ...totals.stages },
    evaluated: { ...totals.evaluated },
    newestSteps: [...totals.newestSteps],
    seconds: earlier + (now() - began) / 1000,
  });
  const add = (stage: string, seconds: number): void => {
    totals.stages[stage] = (totals.stages[stage] ?? 0) + seconds;
  };
  return {
    async time(stage, work) {
      const from = now();
      try {
        return await work();
      } finally {
        add(stage, (now() - from) / 1000);
      }
    },
    onEvent(event) {
      if (event.type === "stage") add(`training: ${event.stage}`, event.seconds);
    },
    addPlayed(trajectories) {
      let usd = 0;
      for (const { usage, metrics } of trajectories) {
        totals.turns += usage.completions;
        totals.promptTokens += usage.promptTokens;
        totals.completionTokens += usage.completionTokens;
        usd += requirePrice(metrics["cost_usd"] ?? 0, "cost_usd of a rollout's metrics");
      }
      totals.usd += usd;
      return usd;
    },
    addUsd: (usd) => void (totals.usd += requirePrice(usd, "A cost")),
    addEvaluation(rollouts, { seconds, usd }) {
      const { evaluated } = totals;
      evaluated.rollouts += rollouts;
      evaluated.seconds += seconds;
      evaluated.usd += usd;
    },
    addStep(taken) {
      totals.newestSteps = [...totals.newestSteps, taken].slice(-pricedSteps);
    },
    soFar,
    save,
    saveSoon() {
      due ??= setTimeout(() => {
        // Whoever saves next says why it cannot be written.
        save().catch(() => undefined);
      }, 1000).unref();
    },
  };
}

/** One price that is none would make the sum of all others none, and a budget that it is compared with endless. */
export function requirePrice(usd: unknown, what: string): number {
  if (typeof usd === "number" && Number.isFinite(usd) && usd >= 0) return usd;
  const said = typeof usd === "number" ? String(usd) : JSON.stringify(usd);
  throw new HoneError(`${what} is a number of dollars, 0 or more, not ${said}.`, {
    ...{ code: "invalid_config", param: "cost_usd" },
  });
}

async function readTotals(file: string): Promise<Totals> {
  const none = {
    ...{ starts: 0, seconds: 0, stages: {}, turns: 0 },
    ...{ promptTokens: 0, completionTokens: 0, usd: 0 },
    ...{ evaluated: { rollouts: 0, seconds: 0, usd: 0 }, newestSteps: [] },
  };
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "{}";
    throw error;
  });
  return { ...none, ...(JSON.parse(text) as Partial<Totals>) };
}
