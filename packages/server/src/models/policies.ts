import { createReadStream } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { pipeline, Readable, Transform } from "node:stream";
import { HoneError, type PolicyDetail, type PolicyInfo, policyName } from "@hone/core";
import type { Retention } from "../retention/retention.ts";
import { NotReadable, openRegular } from "../store/regular-file.ts";
import { type Checkpoints, checkpointName } from "../policies/checkpoints.ts";
import type { LivePolicies } from "../policies/live.ts";
import type { Models, PolicyRecord } from "../policies/models.ts";
import { removedPolicy } from "../policies/served.ts";

interface PolicyFile {
  bytes: number;
  /** What is opened here must be read to its end, or cancelled. */
  open(): Promise<ReadableStream>;
}

/** Single policies as the API shows them. */
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
      checkpoint: removed ? null : checkpointName(model, step),
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
      const path = join(checkpoints.path(model, step), name);
      const openWhole = () => openEntry(path, entry.bytes, `${name} of ${policyName(model, step)}`);
      // Checked before the response says its length, because a body that is shorter than that never ends.
      await (await openWhole()).close();
      return {
        bytes: entry.bytes,
        open: async () => wholeStream(await openWhole(), entry.bytes),
      };
    },
  };
}

async function openEntry(path: string, expected: number, what: string): Promise<FileHandle> {
  const advice = "Restore the folder from a copy, or use another policy.";
  try {
    const { handle, bytes } = await openRegular(path);
    if (bytes === expected) return handle;
    await handle.close();
    throw new HoneError(
      `The file ${what} is damaged: it has ${bytes} bytes, and had ${expected}. ${advice}`,
      { code: "bad_adapter" },
    );
  } catch (cause) {
    if (!(cause instanceof NotReadable)) throw cause;
    const code = cause.missing ? "not_found" : "bad_adapter";
    throw new HoneError(`The file ${what} ${cause.message}. ${advice}`, { code, cause });
  }
}

/** Fails if the file becomes shorter meanwhile. The connection is then closed, which the client notices. */
function wholeStream(handle: FileHandle, bytes: number): ReadableStream {
  let left = bytes;
  const counted = new Transform({
    transform(piece: Uint8Array, _, done) {
      left -= piece.length;
      done(null, piece);
    },
    flush: (done) => done(left === 0 ? null : new NotReadable("became shorter while it was read")),
  });
  pipeline(createReadStream("", { fd: handle }), counted, () => undefined);
  return Readable.toWeb(counted) as ReadableStream;
}
