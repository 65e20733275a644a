import { type Keep, type KeepReason, policyName } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Checkpoints } from "../policies/checkpoints.ts";
import type { Models, PolicyRecord } from "../policies/models.ts";
import type { Store } from "../store/store.ts";

export const defaultKeep = 10;
/** Training goes on from the newest policy, and a step that is thrown away begins again from the one before it. */
const optimizersKept = 2;

interface Removal {
  kind: "policy" | "optimizer";
  policy: string;
  bytes: number;
}

/** Which checkpoints stay. The rules are in docs/decisions. */
export interface Retention {
  /** Why each policy of a model stays, by its step; empty where it may go. */
  reasons(model: string, keep?: Keep): Map<number, KeepReason[]>;
  /** The evaluation of a policy: finished rollouts of mode "eval" that have a reward. */
  evaluation(model: string, step: number): { rollouts: number; reward: number | null };
  /** The policies that may be removed now. */
  plan(keep?: Keep): Promise<Removal[]>;
  /** Runs `work` while no pass does, so that no pass works on a model that `work` takes away. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when the passes that were asked for so far have ended. */
  idle(): Promise<void>;
  /** Removes what may go, of one model or of all. A policy that is taken into use meanwhile stays. */
  apply(options?: { model?: string | undefined; keep?: Keep | undefined }): Promise<Removal[]>;
}

export function createRetention(options: {
  store: Store;
  models: Models;
  checkpoints: Checkpoints;
  /** Steps that open rollouts and calls under way need. Asked without a pause before each removal. */
  held: (model: string) => ReadonlySet<number>;
  /** The engine lets go of it. */
  unload: (policy: string) => Promise<void>;
  keep: Keep;
  log: Logger;
}): Retention {
  const { store, models, checkpoints, held, log } = options;
  const serially = pLimit(1);
  // Policies whose optimizer's file was removed already: a pass need not look for it on the disk again.
  const slim = new Set<string>();

  /** The database keeps these sums up to date as rollouts end, so a pass does not read the rollouts. */
  function evaluations(
    model: string,
    steps: readonly number[],
  ): { step: number; rollouts: number; reward: number | null }[] {
    return store.all(
      `SELECT step, rollouts, reward_sum / rollouts AS reward FROM evaluations
       WHERE model = ? AND step IN (SELECT value FROM json_each(?)) AND rollouts > 0 ORDER BY step`,
      model,
      JSON.stringify(steps),
    ) as { step: number; rollouts: number; reward: number | null }[];
  }

  function bestOf(model: string, steps: readonly number[]): number | null {
    let best: { step: number; reward: number } | null = null;
    for (const { step, reward } of evaluations(model, steps)) {
      if (reward !== null && (!best || isAsGood(reward, best.reward))) best = { step, reward };
    }
    return best?.step ?? null;
  }

  /** The reasons of every policy of a model, as of now: nothing is awaited in here. */
  function judge(name: string, keep: Keep): Map<PolicyRecord, KeepReason[]> {
    const model = models.require(name);
    const there = models.policies(name).filter(({ removedAt }) => removedAt === null);
    const newest = new Set((keep === "all" ? there : there.slice(-keep)).map(({ step }) => step));
    const best = bestOf(
      name,
      there.map(({ step }) => step),
    );
    const needed = held(name);
    return new Map(
      there.map((policy) => {
        const { step } = policy;
        const reasons: KeepReason[] = [];
        if (step === 0) reasons.push("base");
        if (step === model.learnt) reasons.push("learnt");
        if (step === model.served) reasons.push("served");
        if (newest.has(step)) reasons.push("newest");
        if (policy.pinned) reasons.push("pinned");
        if (step === best) reasons.push("best");
        if (needed.has(step)) reasons.push("held");
        return [policy, reasons];
      }),
    );
  }

  async function planOf(model: string, keep: Keep): Promise<Removal[]> {
    const removals: Removal[] = [];
    for (const [{ step }, reasons] of judge(model, keep)) {
      const policy = policyName(model, step);
      if (reasons.length === 0) {
        removals.push({ kind: "policy", policy, bytes: await checkpoints.size(model, step) });
        continue;
      }
      if (keep === "all" || slim.has(policy)) continue;
      if (step > models.require(model).learnt - optimizersKept) continue;
      const bytes = await checkpoints.optimizerBytes(model, step);
      if (bytes > 0) removals.push({ kind: "optimizer", policy, bytes });
      else slim.add(policy);
    }
    // The row says that it was removed and its folder is still there: the server ended in between.
    for (const step of await checkpoints.folders(model)) {
      if (typeof models.policy(model, step)?.removedAt !== "number") continue;
      const bytes = await checkpoints.size(model, step);
      removals.push({ kind: "policy", policy: policyName(model, step), bytes });
    }
    return removals;
  }

  async function remove(model: string, removal: Removal, keep: Keep): Promise<boolean> {
    const step = Number(removal.policy.slice(model.length + 1));
    if (removal.kind === "optimizer") {
      await checkpoints.dropOptimizer(model, step);
      slim.add(removal.policy);
      return true;
    }
    const record = models.policy(model, step);
    if (record?.removedAt === null) {
      const reasons = [...judge(model, keep)].find(([policy]) => policy.step === step)?.[1] ?? [];
      if (reasons.length > 0) return false;
      // The row is written first, so that nobody is told of a policy whose folder is half removed.
      await models.markRemoved(model, step);
      fault("retention.after-row");
    }
    await options.unload(removal.policy);
    await checkpoints.remove(model, step);
    log.info({ policy: removal.policy, bytes: removal.bytes }, "retention removed a policy");
    return true;
  }

  return {
    reasons: (model, keep = options.keep) =>
      new Map([...judge(model, keep)].map(([{ step }, reasons]) => [step, reasons])),

    evaluation(model, step) {
      const [found] = evaluations(model, [step]);
      return { rollouts: found?.rollouts ?? 0, reward: found?.reward ?? null };
    },

    plan: (keep = options.keep) =>
      serially(async () => {
        const removals: Removal[] = [];
        for (const { name } of models.list()) removals.push(...(await planOf(name, keep)));
        return removals;
      }),

    exclusively: (work) => serially(work),

    idle: () => serially(() => Promise.resolve()),

    apply: ({ model: only, keep = options.keep } = {}) =>
      serially(async () => {
        const removed: Removal[] = [];
        for (const name of only === undefined ? models.list().map((m) => m.name) : [only]) {
          // It may have been deleted since it was asked for.
          if (!models.find(name)) continue;
          for (const removal of await planOf(name, keep)) {
            if (await remove(name, removal, keep)) removed.push(removal);
          }
        }
        return removed;
      }),
  };
}

/** Sums of the same rewards may differ by their rounding, so means this close are equal. The later of equals is the best. */
function isAsGood(reward: number, best: number): boolean {
  return reward >= best - 1e-9 * Math.max(1, Math.abs(best));
}
