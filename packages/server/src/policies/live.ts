import { realpath } from "node:fs/promises";
import { HoneError, policyName } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { fault } from "../faults/fault.ts";
import type { Engine } from "../ports/engine.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Model, Models } from "./models.ts";

/** Which policies the engine serves, and who still needs them. */
export interface LivePolicies {
  /** Keeps a policy loaded until `release`. */
  hold(policy: string): void;
  release(policy: string): void;
  isLive(policy: string): boolean;
  isHeld(policy: string): boolean;
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
}

export const livePoliciesPerModel = 4;

export function createLivePolicies(options: {
  engine: () => Engine;
  checkpoints: Checkpoints;
  models: Models;
  base: string;
  log: Logger;
}): LivePolicies {
  const { engine, checkpoints, models, log } = options;
  const live = new Map<string, { model: string; step: number }>();
  const holders = new Map<string, number>();
  // One at a time: a policy must not be unloaded while somebody finds it loaded.
  const serially = pLimit(1);

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
    live.set(policy, { model, step });
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

  /** Keeps the newest ones, those in use, and `asked`, whose user may not hold it yet. */
  async function unloadIdle(name: string, asked: number): Promise<void> {
    const newest = models.require(name).served;
    for (const [policy, { model, step }] of live) {
      if (model !== name || step === asked || step > newest - livePoliciesPerModel) continue;
      if ((holders.get(policy) ?? 0) > 0) continue;
      await unload(policy);
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
    hold: (policy) => void holders.set(policy, (holders.get(policy) ?? 0) + 1),
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
        fault("publish.before-alias");
        if (model.served !== model.learnt) await models.setServed(name, model.learnt);
        fault("publish.after-alias");
        await unloadIdle(name, model.learnt);
      }),

    reload: () =>
      serially(async () => {
        for (const policy of await missing()) live.delete(policy);
        for (const model of models.list()) {
          if (model.base !== options.base) {
            log.warn({ model: model.name, base: model.base }, "model of another base: not served");
            continue;
          }
          const wanted = new Set<number>();
          wanted.add(Math.max(model.served, 0));
          for (const { step } of models.policies(model.name)) {
            if (holders.has(policyName(model.name, step))) wanted.add(step);
          }
          for (const step of wanted) {
            if (!live.has(policyName(model.name, step))) await loadOrLog(model, step);
          }
          // The server died between making the model and serving its policy 0.
          if (model.served < 0 && live.has(policyName(model.name, 0))) {
            await models.setServed(model.name, 0);
          }
        }
      }),
  };
}

async function isSameFolder(a: string, b: string): Promise<boolean> {
  if (a === b) return true;
  const [realA, realB] = await Promise.all([a, b].map((path) => realpath(path).catch(() => null)));
  return realA !== null && realA === realB;
}
