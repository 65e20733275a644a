import { HoneError, parseModelRef, policyName, requireModelRef } from "@hone/core";
import { type AdapterBase, baseOf, isSameBase } from "../policies/base-of.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Models } from "../policies/models.ts";
import { requireServed } from "../policies/served.ts";
import type { Sampler } from "../ports/engine.ts";
import type { PolicyLease, PolicyRouter } from "../ports/rollouts.ts";
import type { RolloutRecord } from "./records.ts";
import type { Rollouts } from "./rollouts.ts";

export function createPolicyRouter(options: {
  rollouts: Rollouts;
  models: Models;
  live: LivePolicies;
  engines: Pick<Sampler, "info">;
  base: AdapterBase;
  startedAt: number;
}): PolicyRouter {
  const { rollouts, models, live, engines } = options;

  async function lease(
    model: string,
    step: number,
    rollout: Pick<RolloutRecord, "id" | "group"> | null,
    over: () => void,
  ): Promise<PolicyLease> {
    const policy = policyName(model, step);
    live.hold(policy);
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      live.release(policy);
      over();
    };
    try {
      if (!live.isLive(policy)) await live.ensure(model, step);
      // The model may have been deleted while its policy was loaded.
      const { chatTemplateKwargs } = models.require(model);
      const { id: rolloutId = null, group = null } = rollout ?? {};
      return { policy, rolloutId, group, chatTemplateKwargs, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  function stepFor(record: RolloutRecord, modelRef: string): number {
    const ref = parseModelRef(modelRef);
    const pinned = record.policyStep ?? record.step;
    if (
      ref?.model !== record.model ||
      (ref.step !== null && pinned !== null && ref.step !== pinned)
    ) {
      const wanted = pinned === null ? record.model : policyName(record.model, pinned);
      throw new HoneError(
        `The rollout "${record.id}" is of ${wanted}, the request asks for "${modelRef.slice(0, 80)}". Send "model": "${record.model}".`,
        { code: "model_mismatch", param: "model" },
      );
    }
    const step = pinned ?? ref.step ?? models.require(record.model).served;
    requireServed(models, record.model, step, "model");
    return step;
  }

  return {
    async leaseForRollout(key, rolloutId, modelRef, pins = true) {
      const record = rollouts.require(key, rolloutId);
      if (record.status !== "open") {
        throw new HoneError(
          `The rollout "${record.id}" is ${record.status} and takes no more completions. Make a new one.`,
          { code: "rollout_closed", param: "rolloutId" },
        );
      }
      const step = stepFor(record, modelRef);
      // Pinned before anything is awaited, so that two first requests at once get the same policy.
      if (pins && record.policyStep === null) rollouts.pin(record, step);
      return lease(record.model, step, record, rollouts.beginCall(record));
    },

    async leaseForModel(_key, modelRef) {
      // A model can only have the base's name if it was made under another base. It answers, as it does in its rollouts.
      if (modelRef === options.base.name && !models.find(modelRef)) {
        const { base } = await engines.info();
        return {
          policy: base,
          ...{ rolloutId: null, group: null },
          chatTemplateKwargs: null,
          release: () => undefined,
        };
      }
      const ref = requireModelRef(modelRef);
      const model = models.require(ref.model);
      const step = ref.step ?? model.served;
      requireServed(models, model.name, step, "model");
      return lease(model.name, step, null, () => undefined);
    },

    listModels() {
      const entries = [{ id: options.base.name, createdAt: options.startedAt }];
      for (const model of models.list()) {
        if (model.served < 0 || !isSameBase(baseOf(model), options.base)) continue;
        entries.push({ id: model.name, createdAt: model.createdAt });
        for (const { step, createdAt, removedAt } of models.policies(model.name)) {
          if (removedAt !== null) continue;
          if (step <= model.served) entries.push({ id: policyName(model.name, step), createdAt });
        }
      }
      return Promise.resolve(entries);
    },
  };
}
