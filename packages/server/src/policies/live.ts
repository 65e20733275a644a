import { HoneError, policyName } from "@hone/core";
import pLimit from "p-limit";
import type { Logger } from "pino";
import type { Engine } from "../ports/engine.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Models } from "./models.ts";

/** Which policies the engine serves, and who still needs them. */
export interface LivePolicies {
  /** Keeps a policy loaded until `release`. */
  hold(policy: string): void;
  release(policy: string): void;
  isLive(policy: string): boolean;
  /** Loads a policy unless it is served already. */
  ensure(model: string, step: number): Promise<void>;
  /** served = learnt, the alias moves, and what nobody needs is unloaded. */
  publish(model: string): Promise<void>;
  /** The engine is new: loads the served and the held policies of every model. */
  reload(): Promise<void>;
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

  /** Asks the engine also where memory says that it serves the policy: it may be another process by now. */
  async function load(model: string, step: number): Promise<void> {
    const policy = policyName(model, step);
    await checkpoints.verify(model, step);
    if (!(await engine().served()).has(policy)) {
      await engine().load(policy, checkpoints.path(model, step));
      if (!(await engine().served()).has(policy)) {
        throw new HoneError(`The engine took ${policy} but does not serve it.`, {
          code: "engine_error",
        });
      }
    }
    live.set(policy, { model, step });
  }

  /** A damaged policy must not keep the others from being served. */
  async function loadOrLog(model: string, step: number): Promise<void> {
    try {
      await load(model, step);
    } catch (error) {
      if (!HoneError.isInstance(error) || error.code !== "bad_adapter") throw error;
      log.error({ policy: policyName(model, step), err: error }, "a policy cannot be served");
    }
  }

  async function unloadIdle(name: string): Promise<void> {
    const newest = models.require(name).served;
    for (const [policy, { model, step }] of live) {
      if (model !== name || step > newest - livePoliciesPerModel) continue;
      if ((holders.get(policy) ?? 0) > 0) continue;
      live.delete(policy);
      try {
        await engine().unload(policy);
      } catch (error) {
        log.warn({ policy, err: error }, "a policy that nobody needs could not be unloaded");
      }
    }
  }

  return {
    hold: (policy) => void holders.set(policy, (holders.get(policy) ?? 0) + 1),
    release(policy) {
      const left = (holders.get(policy) ?? 0) - 1;
      if (left > 0) holders.set(policy, left);
      else holders.delete(policy);
    },
    isLive: (policy) => live.has(policy),
    ensure: (model, step) =>
      serially(async () => {
        if (!live.has(policyName(model, step))) await load(model, step);
      }),

    publish: (name) =>
      serially(async () => {
        const model = models.require(name);
        await load(name, model.learnt);
        if (model.served !== model.learnt) await models.setServed(name, model.learnt);
        await unloadIdle(name);
      }),

    reload: () =>
      serially(async () => {
        const served = await engine().served();
        live.clear();
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
            const policy = policyName(model.name, step);
            if (served.has(policy)) live.set(policy, { model: model.name, step });
            else await loadOrLog(model.name, step);
          }
          // The server died between making the model and serving its policy 0.
          if (model.served < 0 && live.has(policyName(model.name, 0))) {
            await models.setServed(model.name, 0);
          }
        }
      }),
  };
}
