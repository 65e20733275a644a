import { z } from "zod";

/** The files of an adapter, as PEFT names them. */
export const adapterName = "adapter_model.safetensors";
export const adapterConfigName = "adapter_config.json";
/** The scalar head of a reward model, beside the adapter. No engine reads it. */
export const headName = "score.safetensors";

/** A SHA-256 as it stands in files and on the wire. */
export const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

/** An adapter as engines have to serve it: the files of one policy, by what they hold and not only by where they lie. */
export interface LiveAdapter {
  /** `name@N`. The name under which an import is tried has a suffix, and is no policy's. */
  policy: string;
  /** The folder with `adapter_config.json` and `adapter_model.safetensors`, on the server's disk. */
  path: string;
  /** SHA-256 of `adapter_model.safetensors`, in hexadecimal digits. */
  sha256: string;
  /** Of `adapter_model.safetensors`. @unit bytes */
  bytes: number;
  rank: number;
  /** What an engine has to answer with it. None of checkpoints from before there were probes. */
  probe?: Probe | undefined;
}

export const probeAnswerSchema = z.object({
  /** Of each token of the prompt but the first. */
  prompt: z.array(z.number()).min(1),
  /** Of the likeliest token after the prompt. */
  next: z.number(),
});
/** Logprobs at temperature 1. */
export type ProbeAnswer = Readonly<z.infer<typeof probeAnswerSchema>>;

export const probeSchema = z
  .object({
    /** What the base computed in. */
    dtype: z.enum(["float32", "bfloat16"]),
    /** A prompt of ordinary token ids. */
    ids: z.array(z.int()).min(2),
    /** With the adapter. */
    policy: probeAnswerSchema,
    /** Without it. Where both are alike, the probe cannot tell the adapter from none. */
    base: probeAnswerSchema,
  })
  .refine(
    ({ ids, policy, base }) =>
      policy.prompt.length === ids.length - 1 && base.prompt.length === ids.length - 1,
    "there is a logprob for each token of the prompt but the first",
  );
/** What the trainer computes for a short text, so that an engine's answers show whether it serves the same weights. */
export type Probe = Readonly<z.infer<typeof probeSchema>>;

/** What all engines of a server sample from. */
export interface LiveBase {
  name: string;
  dtype: "float32" | "bfloat16";
  /** In how many bits its linear layers are held, if not in all of them. */
  quantize?: string | null | undefined;
  /** Of its files, where they are on this machine (`base-fingerprint.ts`). */
  fingerprint?: string | null | undefined;
}

/** What every engine that takes traffic serves. */
export interface LiveSet {
  /** Grows with each change of `adapters`. */
  generation: number;
  base: LiveBase;
  adapters: readonly LiveAdapter[];
}
