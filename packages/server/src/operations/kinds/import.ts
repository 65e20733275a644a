import { readFile, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import { HoneError, policyName } from "@hone/core";
import { unlessAborted } from "@hone/transport";
import { z } from "zod";
import { checkpointName } from "../../policies/checkpoints.ts";
import {
  adapterConfigName,
  adapterName,
  type LiveAdapter,
  type Probe,
} from "../../ports/live-set.ts";
import { sha256OfFile, syncFolder } from "../../store/files.ts";
import {
  badAdapter,
  checkWeights,
  copyDeadlineMs,
  copyFile,
  maxConfigBytes,
} from "./adapter-files.ts";
import type { OperationContext } from "../context.ts";
import { onceThere } from "./once-there.ts";
import { probeOf } from "./probe-of.ts";
import type { Op, OperationRecord } from "../records.ts";
import { aborted, type OperationKind, type Task, timed } from "./kind.ts";

const adapterConfigSchema = z.looseObject({
  peft_type: z.literal("LORA"),
  r: z.int(),
  lora_alpha: z.number(),
  target_modules: z.union([z.string(), z.array(z.string())]),
});
type AdapterConfig = z.infer<typeof adapterConfigSchema>;

type ImportRecord = OperationRecord<Extract<Op, { type: "import" }>>;

/**
 * A PEFT folder becomes policy N+1. Only the adapter is taken: the optimizer begins anew. Trainer and engine judge
 * it (rank, shapes, NaN) before anything is committed.
 */
export const importAdapter: OperationKind<ImportRecord> = {
  async run(task) {
    const { context, record, emit, signal } = task;
    const { checkpoints } = context;
    const { name, learnt, seed } = context.models.require(record.model);
    const source = await allowedFolder(context, record.op.path);
    await checkpoints.requireSpace(name, 0);
    const staging = await checkpoints.stage(name, record.id, record.deaths);
    let probe: Probe | undefined;
    try {
      await timed(emit, "copy", () =>
        inTime(signal, (limit) => copyAdapter(context, name, source, staging, limit)),
      );
      probe = await timed(emit, "validate", async () => {
        // The trainer looks at names, shapes and numbers, which not every engine does.
        const told = await probeOf(context, staging, emit, signal);
        const checkName = `${policyName(name, learnt + 1)}.check-${record.id}`;
        await checkInEngine(task, checkName, staging, told);
        return told;
      });
    } catch (error) {
      await checkpoints.discard(staging);
      throw error;
    }
    return {
      staging,
      files: [adapterConfigName, adapterName],
      metrics: {},
      seed,
      ...(probe && { probe }),
    };
  },

  result: (_context, { model }, step) => ({
    type: "import",
    step,
    policy: policyName(model, step),
    checkpoint: checkpointName(model, step),
  }),
};

async function copyAdapter(
  { checkpoints }: OperationContext,
  model: string,
  source: string,
  staging: string,
  signal: AbortSignal,
): Promise<void> {
  const copy = async (name: string, maxBytes: number): Promise<void> => {
    // The content, not the link: what a link leads to may change after it was checked.
    const file = await inside(join(source, name), source, name);
    await copyFile(file, join(staging, name), { name, maxBytes, signal });
  };
  await copy(adapterConfigName, maxConfigBytes);
  compareShapes(await readConfig(staging), await readConfig(checkpoints.path(model, 0)));
  // The same shape in the widest type: twice float32, and room for names and metadata.
  await copy(adapterName, 2 * (await checkpoints.adapterBytes(model, 0)) + 16 * 1024 * 1024);
  await checkWeights(join(staging, adapterName), adapterName);
  await syncFolder(staging);
}

/** Ends with the operation's abort and at the deadline, also while a disk does not answer. */
async function inTime(
  abort: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const signal = AbortSignal.any([abort, AbortSignal.timeout(copyDeadlineMs)]);
  await unlessAborted(work(signal), signal, () =>
    abort.aborted
      ? aborted()
      : badAdapter(`its files could not be read in ${copyDeadlineMs / 60_000} minutes`),
  );
}

async function allowedFolder(context: OperationContext, path: string): Promise<string> {
  for (const root of context.importRoots) {
    const allowed = await realpath(root).catch(() => null);
    if (allowed === null) continue;
    try {
      return await inside(path, allowed);
    } catch {
      // Another root may hold it.
    }
  }
  // One message for what is missing and what is forbidden: paths of the machine are not to be probed.
  throw new HoneError(
    "There is no such folder among those that the operator allows. Copy the adapter into the data directory's imports/ folder and name it by its absolute path.",
    { code: "bad_adapter", param: "op.path" },
  );
}

async function inside(path: string, root: string, name = "folder"): Promise<string> {
  let real: string;
  try {
    real = await realpath(path);
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    throw badAdapter(`its ${name} ${missing ? "is missing" : "cannot be read"}`, cause);
  }
  if (real === root || real.startsWith(root + sep)) return real;
  throw badAdapter("a file of it lies outside of its folder");
}

async function readConfig(folder: string): Promise<AdapterConfig> {
  try {
    return adapterConfigSchema.parse(
      JSON.parse(await readFile(join(folder, adapterConfigName), "utf8")),
    );
  } catch (cause) {
    throw badAdapter(`its ${adapterConfigName} is not that of a PEFT LoRA`, cause);
  }
}

function compareShapes(given: AdapterConfig, own: AdapterConfig): void {
  const describe = ({ r, lora_alpha, target_modules }: AdapterConfig): string =>
    `r ${r}, alpha ${lora_alpha}, modules ${[target_modules].flat().sort().join(", ")}`;
  if (describe(given) === describe(own)) return;
  throw badAdapter(
    `it has ${describe(given)}, and the model ${describe(own)}; a model keeps the shape it was made with`,
  );
}

/** What the engine's end interrupts is done again when it is back, and what it was late for is asked again. */
async function checkInEngine(
  { context, emit, signal }: Task<ImportRecord>,
  name: string,
  staging: string,
  probe: Probe | undefined,
): Promise<void> {
  const weights = join(staging, adapterName);
  const { r: rank } = await readConfig(staging);
  const [sha256, { size: bytes }] = await Promise.all([sha256OfFile(weights), stat(weights)]);
  const adapter: LiveAdapter = { policy: name, path: staging, sha256, bytes, rank, probe };
  let said = false;
  const ask = async (): Promise<{ failure: unknown } | null> => {
    try {
      await tryInEngine(context, adapter);
      return null;
    } catch (failure) {
      // An answer is one, also where it says that the engine has failed.
      if (!HoneError.isInstance(failure) || failure.status !== 503) return { failure };
      const message =
        "The engine does not answer. The adapter is checked when it is back, or asked again.";
      if (!said) emit({ type: "warning", message });
      said = true;
      throw failure;
    }
  };
  try {
    const told = await onceThere(context.ready, signal, ask);
    if (told) throw told.failure;
  } catch (error) {
    // An engine that hangs over it would hang over this as well: nobody waits.
    void letGo(context, name);
    throw signal.aborted ? aborted(error) : error;
  }
}

/**
 * Loads it from staging and lets it go again. The name is no policy's, so that no request reaches the adapter
 * and no later step finds it under its own name, should the unloading fail or the server end before it.
 */
async function tryInEngine(context: OperationContext, adapter: LiveAdapter): Promise<void> {
  try {
    await context.engines.load(adapter);
  } catch (cause) {
    // Its own failure says nothing of the adapter.
    if (!HoneError.isInstance(cause) || cause.code !== "bad_adapter") throw cause;
    throw badAdapter(`the engine refuses it: ${cause.message}`, cause);
  }
  await letGo(context, adapter.policy);
}

/** Whatever happens to it, the adapter was judged. */
async function letGo(context: OperationContext, name: string): Promise<void> {
  try {
    await context.engines.unload(name);
  } catch (error) {
    // It was refused, most likely, and was never there.
    if (HoneError.isInstance(error) && error.code === "policy_not_found") return;
    context.log.warn({ adapter: name, err: error }, "an adapter that was checked stays loaded");
  }
}
