import { HoneError, parseModelRef, policyName } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Engines } from "../ports/engine.ts";
import { compareRanks } from "../ports/ranks.ts";
import { type AdapterBase, baseInWords, baseOf, isSameBase } from "./base-of.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Model, Models } from "./models.ts";

/**
 * Which policies the engines serve, and who still needs them. Their weights may take a given amount of memory. Past
 * it, policies that nobody needs are unloaded, the longest unused first. Whoever asks for an unloaded one waits until
 * it is loaded again, from the same checkpoint and under the same name.
 */
export interface LivePolicies {
  /** Keeps a policy loaded until `release`, and notes that it was used now. */
  hold(policy: string): void;
  release(policy: string): void;
  isLive(policy: string): boolean;
  isHeld(policy: string): boolean;
  /** How many hold a policy of the model: open rollouts that are pinned to it, and requests under way. */
  requestsOf(model: string): number;
  /** How many policies the engine holds, of a model or of all, and their bytes. */
  usage(model?: string): { policies: number; bytes: number };
  /** Unloads a policy that nobody may ask for any more. */
  unload(policy: string): Promise<void>;
  /** Loads a policy unless it is live already, and unloads what nobody needs. */
  ensure(model: string, step: number): Promise<void>;
  /** Loads the newest learnt policy, makes it the served one, which moves the alias, and unloads what nobody needs. */
  publish(model: string): Promise<void>;
  /** To be called when an engine may be new. Loads those served and held policies of every model that are not live. */
  reload(): Promise<void>;
  /** The engine lets go of every policy of a model that was deleted. */
  unloadModel(model: string): Promise<void>;
}

const livePoliciesPerModel = 4;
/** @unit bytes */
export const defaultAdapterMemory = 512 * 1024 * 1024;

interface Live {
  model: string;
  step: number;
  bytes: number;
}

export function createLivePolicies(options: {
  engines: Engines;
  checkpoints: Checkpoints;
  models: Models;
  base: AdapterBase;
  /** What the adapters in the engine may take. Adapters in use stay even past it. @unit bytes */
  memory: number;
  log: Logger;
}): LivePolicies {
  const { engines, checkpoints, models, log } = options;
  // The live policies, in the order of their last use.
  const live = new Map<string, Live>();
  // The last use of each model, also of models of which nothing is live any more.
  const usedAt = new Map<string, number>();
  let uses = 0;
  const holders = new Map<string, number>();
  // Loads and unloads take turns: a policy must not be unloaded just after somebody has found it live.
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

  async function load(model: string, step: number): Promise<void> {
    const policy = policyName(model, step);
    refuseOtherWeights(models.require(model), options.base);
    const adapter = await checkpoints.adapter(model, step);
    try {
      await engines.load(adapter);
    } catch (error) {
      live.delete(policy);
      throw error;
    }
    if (!live.has(policy)) live.set(policy, { model, step, bytes: adapter.bytes });
  }

  /**
   * Loads a policy. One that cannot be served must not keep the others from being served, so that is only logged. Gives
   * the error where the engine may be what is wrong.
   */
  async function loadOrLog(model: Model, step: number): Promise<HoneError | null> {
    try {
      await load(model.name, step);
      return null;
    } catch (error) {
      if (!HoneError.isInstance(error) || error.status === 503) throw error;
      log.error({ policy: policyName(model.name, step), err: error }, "a policy cannot be served");
      return error.code === "bad_adapter" || model.served < 0 ? null : error;
    }
  }

  /** Throws the failure where it is the engine's. */
  async function requireBase(failure: HoneError): Promise<void> {
    try {
      await engines.requireBase();
    } catch (error) {
      log.error({ err: error }, "no policy can be served, nor the base");
      throw failure;
    }
    log.error("no policy can be served: requests for them are refused, the base answers");
  }

  /**
   * Unloads old policies of the model, except those in use and `asked`, whose user may not hold it yet. Then unloads
   * policies of all models until the memory is enough.
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
      await engines.unload(policy);
    } catch (error) {
      log.warn({ policy, err: error }, "a policy that nobody needs could not be unloaded");
    }
  }

  /** Whether an adapter in an engine belongs to a deleted model, so that its deletion could not unload it. */
  function isDeleted(policy: string, path: string): boolean {
    const ref = parseModelRef(policy);
    if (!ref || ref.step === null || !models.isDeleted(ref.model)) return false;
    return path === checkpoints.path(ref.model, ref.step);
  }

  /** The policies that each model should have live. Models in use come first, then those that were used or made last. */
  function wanted(): { model: Model; held: number[]; served: number }[] {
    const found: { model: Model; held: number[]; served: number }[] = [];
    for (const model of models.list()) {
      if (!isSameBase(baseOf(model), options.base)) {
        log.warn(
          { model: model.name, base: model.base, quantize: model.quantize },
          "model of another base: not served",
        );
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

  return {
    hold(policy) {
      holders.set(policy, (holders.get(policy) ?? 0) + 1);
      noteUse(policy);
    },
    usage,
    requestsOf(model) {
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
        for (const policy of await engines.takeLost()) live.delete(policy);
        await engines.unloadStale(isDeleted);
        const loaded: string[] = [];
        let failure: HoneError | null = null;
        for (const { model, held, served } of wanted()) {
          // Held policies are loaded in any case. Of the others those that were used last are, while there is memory.
          const fits = usage().bytes < options.memory || model.served < 0;
          for (const step of [...held, ...(fits ? [served] : [])]) {
            if (live.has(policyName(model.name, step))) continue;
            failure = (await loadOrLog(model, step)) ?? failure;
            loaded.push(policyName(model.name, step));
          }
          // The server died between making the model and serving its policy 0.
          if (model.served < 0 && live.has(policyName(model.name, 0))) {
            await models.setServed(model.name, 0);
          }
        }
        // Where others can be served it is the policy's fault. Where none can, an engine that answers for its base is not
        // to be started again and again: the base is served, and whoever asks for a policy is told why it is not.
        if (failure && live.size === 0) await requireBase(failure);
        // The first ones are the most wanted, so they become the last to be unloaded.
        for (const policy of loaded.toReversed()) moveToEnd(policy);
        await unloadPastMemory(null);
      }),
  };
}

/** A model of another base's name may be of the same weights; one of a base in other bits is not. */
function refuseOtherWeights(model: Model, base: AdapterBase): void {
  if (model.quantize === (base.quantize ?? null)) return;
  throw new HoneError(
    `The model "${model.name}" was trained on the base ${baseInWords(baseOf(model))}, and this server holds ${baseInWords(base)}. Start the server as it was then.`,
    { code: "base_mismatch", param: "model" },
  );
}
