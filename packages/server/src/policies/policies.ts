import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { HoneError, type PolicyDetail, type PolicyInfo, policyName } from "@hone/core";
import type { Retention } from "../retention/retention.ts";
import { removedPolicy } from "../rollouts/rollouts.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { LivePolicies } from "./live.ts";
import type { Models, PolicyRecord } from "./models.ts";

export interface PolicyFile {
  bytes: number;
  /** What is opened here must be read to its end, or cancelled. */
  open(): Promise<ReadableStream>;
}

/** What people ask of single policies. */
export interface Policies {
  list(model: string): PolicyInfo[];
  detail(model: string, step: number): Promise<PolicyDetail>;
  pin(model: string, step: number, pinned: boolean): Promise<PolicyInfo>;
  /** A file that the policy's manifest names. */
  file(model: string, step: number, name: string): Promise<PolicyFile>;
}

export function createPolicies(options: {
  models: Models;
  checkpoints: Checkpoints;
  live: LivePolicies;
  retention: Retention;
}): Policies {
  const { models, checkpoints, live, retention } = options;

  function find(model: string, step: number): PolicyRecord {
    const { learnt } = models.require(model);
    const policy = models.policy(model, step);
    if (policy) return policy;
    throw new HoneError(
      `There is no ${model.slice(0, 64)}@${step}. The newest is ${policyName(model, learnt)}.`,
      { code: "policy_not_found", param: "step" },
    );
  }

  function infoOf(
    { model, step, ...policy }: PolicyRecord,
    keptAs = retention.reasons(model).get(step) ?? [],
  ): PolicyInfo {
    const removed = policy.removedAt !== null;
    return {
      id: policyName(model, step),
      object: "hone.policy",
      model,
      step,
      live: live.isLive(policyName(model, step)),
      pinned: policy.pinned,
      keptAs,
      removedAt: policy.removedAt,
      operationId: policy.operationId,
      checkpoint: removed ? null : `models/${model}/policies/${step}`,
      createdAt: policy.createdAt,
    };
  }

  return {
    list(model) {
      models.require(model);
      const reasons = retention.reasons(model);
      return models.policies(model).map((policy) => infoOf(policy, reasons.get(policy.step) ?? []));
    },

    async detail(name, step) {
      const policy = find(name, step);
      const { base, lora } = models.require(name);
      const manifest =
        policy.removedAt === null ? await checkpoints.readManifest(name, step) : null;
      return {
        ...infoOf(policy),
        base,
        lora,
        parent: manifest?.parent ?? null,
        metrics: manifest?.metrics ?? {},
        files: manifest?.files ?? {},
        evaluated: retention.evaluation(name, step),
      };
    },

    async pin(name, step, pinned) {
      const policy = find(name, step);
      if (policy.removedAt !== null) throw removedPolicy(name, step, "step");
      await models.setPinned(name, step, pinned);
      return infoOf(find(name, step));
    },

    async file(model, step, name) {
      const policy = find(model, step);
      if (policy.removedAt !== null) throw removedPolicy(model, step, "step");
      const manifest = await checkpoints.readManifest(model, step);
      const entry = manifest && Object.hasOwn(manifest.files, name) ? manifest.files[name] : null;
      if (!entry) {
        const names = Object.keys(manifest?.files ?? {}).join(", ");
        throw new HoneError(`${policyName(model, step)} has no such file. It has ${names}.`, {
          code: "not_found",
        });
      }
      return {
        bytes: entry.bytes,
        async open() {
          const handle = await open(join(checkpoints.path(model, step), name), "r");
          return Readable.toWeb(createReadStream("", { fd: handle })) as ReadableStream;
        },
      };
    },
  };
}
