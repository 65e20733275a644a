import { realpath } from "node:fs/promises";
import { HoneError, parseModelRef, policyName } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Engine } from "../ports/engine.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Model, Models } from "./models.ts";

/**
 * Which policies the engine serves, and who still needs them. Their weights may take so much memory; past it
 * those go that were used the longest time ago and that nobody needs. Whoever asks for one waits until it is
 * loaded again: from the same checkpoint, under the same name, and only after the engine let go of it.
 */
export interface LivePolicies {
  /** Keeps a policy loaded until `release`; it is used now. */
  hold(policy: string): void;
  release(policy: string): void;
  isLive(policy: string): boolean;
  isHeld(policy: string): boolean;
  /** Rollouts that are pinned to policies of a model, and calls on them. */
  callsOf(model: string): number;
  /** What the engine holds of a model, or of all. */
  usage(model?: string): { policies: number; bytes: number };
  /** The engine lets go of a policy that nobody may ask for any more. */
  unload(policy: string): Promise<void>;
  /** Loads a policy unless it is served already; what nobody needs is unloaded. */
  ensure(model: string, step: number): Promise<void>;
  /** served = learnt, the alias moves, and what nobody needs is unloaded. */
  publish(model: string): Promise<void>;
  /** The engine may be new: loads the served and the held policies of every model, those that it lacks. */
  reload(): Promise<void>;
  /** Live policies that the engine does not serve, or not from their checkpoints; asks it now. */
  missing(): Promise<string[]>;
  /** The checkpoint of a policy that was never served is about to be another one. */
  forget(policy: string): Promise<void>;
  /** The engine lets go of every policy of a model that was deleted. */
  unloadModel(model: string): Promise<void>;
}

export const livePoliciesPerModel = 4;
/** @unit bytes */
export const defaultAdapterMemory = 512 * 1024 * 1024;

interface Live {
  model: string;
  step: number;
  bytes: number;
}

export function createLivePolicies(options: {
  engine: () => Engine;
  checkpoints: Checkpoints;
  models: Models;
  base: string;
  /** What the adapters in the engine may take. Those in use stay whatever they take. @unit bytes */
  memory: number;
  log: Logger;
}): LivePolicies {
  const { engine, checkpoints, models, log } = options;
  // In the order of their last use.
  const live = new Map<string, Live>();
  // Of models, also of those that the engine holds nothing of any more.
  const usedAt = new Map<string, number>();
  let uses = 0;
  const holders = new Map<string, number>();
  // One at a time: a policy must not be unloaded while somebody finds it loaded.
  const serially = pLimit(1);

  function moveToEnd(policy: string): void {
    const found = live.get(policy);
    if (!found) return;
    live.delete(policy);
    live.set(policy, found);
  }

  function noteUse(policy: string): void {
    moveToEnd(policy);
    const model = policy.slice(0, policy.lastIndexOf("@"));
    usedAt.set(model, ++uses);
  }

  function usage(model?: string): { policies: number; bytes: number } {
    const counted = [...live.values()].filter((one) => model === undefined || one.model === model);
    return {
      policies: counted.length,
      bytes: counted.reduce((total, { bytes }) => total + bytes, 0),
    };
  }

  /** An engine that outlives a server, or that two servers use, serves other weights under the same name. */
  async function servesOurs(
    served: ReadonlyMap<string, string>,
    model: string,
    step: number,
  ): Promise<boolean> {
    const root = served.get(policyName(model, step));
    return root !== undefined && (await isSameFolder(root, checkpoints.path(model, step)));
  }

  /**
   * Asks the engine also where memory says that it serves the policy: it may be another process by now. What
   * this server did not load itself it does not trust, not even from the right folder: a data directory may
   * have been made anew in its place.
   */
  async function load(model: string, step: number): Promise<void> {
    const policy = policyName(model, step);
    await checkpoints.verify(model, step);
    const served = await engine().served();
    if (live.has(policy) && (await servesOurs(served, model, step))) return;
    live.delete(policy);
    if (served.has(policy)) {
      if (await servesOurs(served, model, step)) {
        log.info({ policy }, "an earlier server loaded this policy: loading it again");
      } else {
        log.warn(
          { policy, root: served.get(policy) },
          "the engine serves other weights under this name: they give way to this server's. " +
            "Servers that share an engine need model names of their own",
        );
      }
      await engine().unload(policy);
    }
    await engine().load(policy, checkpoints.path(model, step));
    fault("publish.after-load");
    if (!(await servesOurs(await engine().served(), model, step))) {
      throw new HoneError(
        `The engine took ${policy} but does not serve it from its checkpoint. ` +
          "Look whether another server loads policies of the same name into this engine.",
        { code: "engine_error" },
      );
    }
    live.set(policy, { model, step, bytes: await checkpoints.adapterBytes(model, step) });
  }

  /** What cannot be served must not keep the others from being served. */
  async function loadOrLog(model: Model, step: number): Promise<void> {
    try {
      await load(model.name, step);
    } catch (error) {
      if (!HoneError.isInstance(error)) throw error;
      const refused = model.served < 0 && error.status !== 503;
      if (error.code !== "bad_adapter" && !refused) throw error;
      log.error({ policy: policyName(model.name, step), err: error }, "a policy cannot be served");
    }
  }

  /**
   * Keeps the newest ones of the model, those in use, and `asked`, whose user may not hold it yet; of all models
   * what there is memory for.
   */
  async function unloadIdle(name: string, asked: number): Promise<void> {
    const newest = models.find(name)?.served ?? asked;
    for (const [policy, { model, step }] of [...live]) {
      if (model !== name || step === asked || step > newest - livePoliciesPerModel) continue;
      if (!holders.has(policy)) await unload(policy);
    }
    await unloadPastMemory(policyName(name, asked));
  }

  async function unloadPastMemory(asked: string | null): Promise<void> {
    for (const policy of [...live.keys()]) {
      if (usage().bytes <= options.memory) return;
      if (policy !== asked && !holders.has(policy)) await unload(policy);
    }
  }

  async function unload(policy: string): Promise<void> {
    if (!live.delete(policy)) return;
    try {
      await engine().unload(policy);
    } catch (error) {
      log.warn({ policy, err: error }, "a policy that nobody needs could not be unloaded");
    }
  }

  /** An engine that outlives a server still has what a deletion could not take out of it. */
  async function unloadDeleted(): Promise<void> {
    for (const [policy, root] of await engine().served()) {
      const ref = parseModelRef(policy);
      if (!ref || ref.step === null || !models.isDeleted(ref.model)) continue;
      if (root !== checkpoints.path(ref.model, ref.step)) continue;
      await engine()
        .unload(policy)
        .catch((error: unknown) => {
          log.warn({ policy, err: error }, "a policy of a deleted model stays in the engine");
        });
    }
  }

  /** What each model should have loaded: those in use first, then by their last use, then the newest. */
  function wanted(): { model: Model; held: number[]; served: number }[] {
    const found: { model: Model; held: number[]; served: number }[] = [];
    for (const model of models.list()) {
      if (model.base !== options.base) {
        log.warn({ model: model.name, base: model.base }, "model of another base: not served");
        continue;
      }
      const held = models
        .policies(model.name)
        .filter(({ step }) => holders.has(policyName(model.name, step)))
        .map(({ step }) => step);
      found.push({ model, held, served: Math.max(model.served, 0) });
    }
    const rank = ({ model, held }: (typeof found)[number]): number[] => [
      held.length > 0 ? 1 : 0,
      usedAt.get(model.name) ?? 0,
      models.policy(model.name, Math.max(model.served, 0))?.createdAt ?? 0,
    ];
    return found.toSorted((a, b) => compareRanks(rank(b), rank(a)));
  }

  async function missing(): Promise<string[]> {
    // Both before and after: what is loaded or unloaded while the engine answers is not lost.
    const before = [...live];
    const served = await engine().served();
    const lost: string[] = [];
    for (const [policy, { model, step }] of before) {
      if (!(await servesOurs(served, model, step)) && live.has(policy)) lost.push(policy);
    }
    return lost;
  }

  return {
    hold(policy) {
      holders.set(policy, (holders.get(policy) ?? 0) + 1);
      noteUse(policy);
    },
    usage,
    callsOf(model) {
      let calls = 0;
      for (const [policy, count] of holders) if (policy.startsWith(`${model}@`)) calls += count;
      return calls;
    },
    release(policy) {
      const left = (holders.get(policy) ?? 0) - 1;
      if (left > 0) holders.set(policy, left);
      else holders.delete(policy);
    },
    isLive: (policy) => live.has(policy),
    isHeld: (policy) => holders.has(policy),
    unload: (policy) => serially(() => unload(policy)),
    missing,
    forget: (policy) => serially(() => void live.delete(policy)),
    unloadModel: (name) =>
      serially(async () => {
        for (const [policy, { model }] of [...live]) if (model === name) await unload(policy);
        usedAt.delete(name);
      }),

    ensure: (model, step) =>
      serially(async () => {
        if (live.has(policyName(model, step))) return;
        await load(model, step);
        await unloadIdle(model, step);
      }),

    publish: (name) =>
      serially(async () => {
        const model = models.require(name);
        fault("publish.before-load");
        await load(name, model.learnt);
        noteUse(policyName(name, model.learnt));
        fault("publish.before-alias");
        if (model.served !== model.learnt) await models.setServed(name, model.learnt);
        fault("publish.after-alias");
        await unloadIdle(name, model.learnt);
      }),

    reload: () =>
      serially(async () => {
        for (const policy of await missing()) live.delete(policy);
        await unloadDeleted();
        const loaded: string[] = [];
        for (const { model, held, served } of wanted()) {
          // What is needed now comes first, then those used last, as many as there is memory for.
          const fits = usage().bytes < options.memory || model.served < 0;
          for (const step of [...held, ...(fits ? [served] : [])]) {
            if (live.has(policyName(model.name, step))) continue;
            await loadOrLog(model, step);
            loaded.push(policyName(model.name, step));
          }
          // The server died between making the model and serving its policy 0.
          if (model.served < 0 && live.has(policyName(model.name, 0))) {
            await models.setServed(model.name, 0);
          }
        }
        // The first of them are to go last.
        for (const policy of loaded.toReversed()) moveToEnd(policy);
        await unloadPastMemory(null);
      }),
  };
}

async function isSameFolder(a: string, b: string): Promise<boolean> {
  if (a === b) return true;
  const [realA, realB] = await Promise.all([a, b].map((path) => realpath(path).catch(() => null)));
  return realA !== null && realA === realB;
}

function compareRanks(a: readonly number[], b: readonly number[]): number {
  for (const [at, value] of a.entries()) if (value !== b[at]) return value - (b[at] ?? 0);
  return 0;
}
