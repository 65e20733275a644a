import { HoneError } from "@hone/core";
import type { Probe } from "../../ports/live-set.ts";
import type { OperationContext } from "../context.ts";
import { aborted, type Emit } from "./kind.ts";
import { restartTimeoutMs } from "../ready.ts";

const tries = 3;

/**
 * What engines have to answer with the adapter in a folder. Where the trainer cannot tell, a warning of the operation
 * says so, and engines are believed that they serve it. Throws `bad_adapter` for one that no engine shall get.
 */
export async function probeOf(
  { trainer, ready, log }: OperationContext,
  folder: string,
  emit: Emit,
  signal: AbortSignal,
): Promise<Probe | undefined> {
  for (let nth = 1; ; nth++) {
    const generation = ready.generation();
    try {
      return await trainer.probe(folder);
    } catch (error) {
      if (signal.aborted) throw aborted(error);
      if (HoneError.isInstance(error) && error.code === "bad_adapter") throw error;
      const isAway = HoneError.isInstance(error) && error.code === "worker_unavailable";
      const isBack =
        isAway && nth < tries && (await ready.after(generation, restartTimeoutMs, signal));
      if (isBack) continue;
      if (signal.aborted) throw aborted(error);
      log.error({ folder, err: error }, "a policy's probe could not be computed");
      emit({
        type: "warning",
        message: `The policy's probe could not be computed (${(error as Error).message}). Engines serve it without a check of its logprobs.`,
      });
      return undefined;
    }
  }
}
