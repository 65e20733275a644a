import { readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeFolder, syncFolder } from "../store/files.ts";
import type { Store } from "../store/store.ts";

/** What calls of `forward_backward` have left of a policy. */
interface Gradient {
  /** The newest of these calls. Its folder holds their sum. */
  operationId: string;
  folder: string;
  /** How many they are. */
  accumulated: number;
  /** The loss of the newest. */
  loss: string;
}

/**
 * `models/<name>/gradients/<operation>/`: one folder, and two while a call is under way. A folder counts once its
 * operation has succeeded, and while the policy that it is of is the newest.
 */
export interface Gradients {
  /** Null where no call has left one since policy `step` was made. */
  of(model: string, step: number): Promise<Gradient | null>;
  folder(model: string, operationId: string): string;
  /** Gives a staged folder its place. The operation's end has to follow. */
  keep(model: string, operationId: string, staging: string): Promise<void>;
  /** Removes all but this one. */
  sweep(model: string, kept: string | null): Promise<void>;
}

const selectCall = `SELECT type, status, from_step, json_extract(op, '$.loss.type') AS loss,
  json_extract(result, '$.accumulated') AS accumulated FROM operations WHERE id = ?`;

interface Call {
  type: string;
  status: string;
  from_step: number | null;
  loss: string;
  accumulated: number | null;
}

export function createGradients(dataDir: string, store: Store): Gradients {
  const of = (model: string) => join(dataDir, "models", model, "gradients");
  const names = (model: string) => readdir(of(model)).catch(() => [] as string[]);

  return {
    folder: (model, operationId) => join(of(model), operationId),

    async of(model, step) {
      let newest: Gradient | null = null;
      for (const operationId of await names(model)) {
        const call = store.get(selectCall, operationId) as Call | undefined;
        if (call?.status !== "succeeded" || call.from_step !== step) continue;
        const accumulated = call.accumulated ?? 0;
        // The one that a newer one was added to is still there.
        if (accumulated <= (newest?.accumulated ?? 0)) continue;
        const folder = join(of(model), operationId);
        newest = { operationId, folder, accumulated, loss: call.loss };
      }
      return newest;
    },

    async keep(model, operationId, staging) {
      const folder = join(of(model), operationId);
      await makeFolder(dirname(folder));
      await rm(folder, { recursive: true, force: true });
      await rename(staging, folder);
      await syncFolder(dirname(folder));
    },

    async sweep(model, kept) {
      for (const name of await names(model)) {
        if (name !== kept) await rm(join(of(model), name), { recursive: true, force: true });
      }
    },
  };
}
